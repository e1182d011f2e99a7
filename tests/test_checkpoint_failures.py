import errno
import logging
import os
import sys
import types

import pytest

from tests.test_checkpoints import abstract, init
from zoo import checksums
from zoo.checkpoints import Checkpoints
from zoo.errors import UserError


def test_a_full_disk_is_told_in_one_line_and_leaves_what_was_there(tmp_path, monkeypatch):
  keeper = Checkpoints(tmp_path)
  keeper.save(1, init(), wait=True)

  def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with monkeypatch.context() as patch:
    patch.setattr(checksums, "write", full)
    with pytest.raises(UserError, match="no space left on the disk. The checkpoint of step 1 is intact. Make room"):
      keeper.save(2, init(), wait=True)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["1"]
  keeper.save(3, init(), wait=True)
  assert keeper.restore(abstract(init()))[1] == 3
  keeper.close()


def test_orbax_adds_no_tracebacks_of_its_own_and_others_are_shown(tmp_path, monkeypatch, caplog):
  shown = []
  monkeypatch.setattr(sys, "unraisablehook", shown.append)
  for _ in range(2):
    Checkpoints(tmp_path).close()
  closed, other = RuntimeError("Event loop is closed"), RuntimeError("something else")
  late, strange, of_somebody = (
    types.SimpleNamespace(exc_value=e, object=o) for e, o in ((closed, None), (other, None), (closed, 1))
  )
  for unraisable in (late, strange, of_somebody):
    sys.unraisablehook(unraisable)
  assert shown == [strange, of_somebody]

  with caplog.at_level(logging.ERROR, logger="asyncio"):
    for place in ("orbax/checkpoint/serialization.py", "mine.py"):
      try:
        raise ValueError(place)
      except ValueError:
        logging.getLogger("asyncio").exception("Task exception was never retrieved %s", place)
  assert [record.args for record in caplog.records] == [("mine.py",)]
