import errno
import json
import logging
import os
import re
import shutil
import sys
import types

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.checkpoints.test_manager import abstract, equal, init, mesh, rows, saved, train_step
from zoo import storage
from zoo.checkpoints import manager
from zoo.checkpoints.fingerprints import fingerprints
from zoo.checkpoints.manager import Checkpoints
from zoo.errors import UserError


def test_a_full_disk_is_told_in_one_line_and_leaves_what_was_there(tmp_path, monkeypatch):
  keeper = Checkpoints(tmp_path)
  keeper.save(1, init(), wait=True)

  def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with monkeypatch.context() as patch:
    patch.setattr(storage, "write_checksums", full)
    with pytest.raises(
      UserError, match="no space left on the disk. The checkpoint of step 1 is intact. Free some space"
    ):
      keeper.save(2, init(), wait=True)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["1"]
  keeper.save(3, init(), wait=True)
  assert keeper.restore(abstract(init()))[1] == 3
  keeper.close()


def test_a_folder_that_may_not_be_written_to_is_told_though_it_cannot_be_tidied(tmp_path, monkeypatch):
  def forbidden(*_, **__):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

  with Checkpoints(tmp_path) as keeper, monkeypatch.context() as patch:
    patch.setattr(manager, "_incomplete", lambda folder: [types.SimpleNamespace(rmtree=forbidden)])
    patch.setattr(keeper.manager, "save", forbidden)
    with pytest.raises(UserError, match="Cannot save a checkpoint in .*Permission denied. There is no earlier"):
      keeper.save(1, init())


def test_another_host_that_is_lost_while_saving_is_not_taken_for_a_full_disk(tmp_path, monkeypatch):
  lost = jax.errors.JaxRuntimeError("UNKNOWN: Gloo AllGather failed: Connection closed by peer")

  def late(*_, **__):  # As Orbax puts it.
    raise TimeoutError("Timed out while waiting for async_write_complete barrier.") from lost

  with Checkpoints(tmp_path) as keeper, monkeypatch.context() as patch:
    patch.setattr(keeper.manager, "save", late)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Gloo"):
      keeper.save(1, init())


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


def largest(folder):
  return max((folder / "state").rglob("d/*"), key=lambda path: path.stat().st_size)


def truncate(folder):
  largest(folder).write_bytes(largest(folder).read_bytes()[:-5])


def flip(folder):
  largest(folder).write_bytes(bytes(byte ^ 1 for byte in largest(folder).read_bytes()))


def delete(folder):
  largest(folder).unlink()


def delete_description(folder):
  (folder / manager.CHECKSUMS).unlink()
  (folder / "state" / "_METADATA").unlink()


def delete_fingerprints(folder):
  shutil.rmtree(folder / manager.FINGERPRINTS)


def garble_score(folder):
  (folder / "metrics" / "metrics").write_text("{")


def change_a_number(folder):
  """Changes a fingerprint where no checksums of files exist: in a bucket, or in a checkpoint of many hosts."""
  (folder / manager.CHECKSUMS).unlink()
  file = folder / manager.FINGERPRINTS / "metadata"
  file.write_text(json.dumps(json.loads(file.read_text()) | {"params/up/kernel": 7}))


def written(name, change):
  def damage(folder):
    (folder / name).write_text(change((folder / name).read_text()))

  damage.__name__ = f"{name} {change('x')[:20]}"
  return damage


def rename(folder):
  """Replaces the checkpoint by that of another step."""
  shutil.rmtree(folder)
  shutil.copytree(folder.with_name("1"), folder)


def sparse(folder):
  with open(folder / ORBAX, "wb") as file:
    file.truncate(2**33)


ORBAX, NUMBERS, SCORE = "_CHECKPOINT_METADATA", "fingerprints/metadata", "metrics/metrics"

DAMAGES = {
  rename: "it was saved as the checkpoint of step 1 and renamed",
  written(ORBAX, lambda _: "[]"): "must be a dictionary",
  written(ORBAX, lambda _: '{"item_handlers": 3}'): "Object must be any one of types",
  written(ORBAX, lambda _: "[" * 100_000): "recursion",
  sparse: "has 8,589,934,592 bytes; the limit for such a file is 67,108,864",
  written(NUMBERS, lambda _: "[3]"): "fingerprints are not integers",
  written(NUMBERS, lambda _: '{"step": null}'): "fingerprints are not integers",
  written(NUMBERS, lambda _: "[" * 100_000): "nested more than 200 deep",
  written(SCORE, lambda _: "[3]"): "its score is not a number",
  written(SCORE, lambda _: '{"name": 1, "mode": 2, "value": "x"}'): "its score is not a number",
  written(SCORE, lambda text: text.replace("null", "7", 1)): "its score has changed since it was saved",
  truncate: "has .* bytes instead of",
  flip: "bytes of the file .* have changed",
  delete: "is missing",
  delete_description: "Metadata file",
  delete_fingerprints: "fingerprints are missing",
  garble_score: "Expecting",
  change_a_number: "the values of params/up/kernel have changed",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_set_aside_and_the_one_before_it_is_used(tmp_path, damage):
  told = []
  saved(tmp_path, 1, 2)
  damage(tmp_path / "2")
  with Checkpoints(tmp_path, note=told.append) as keeper:
    state, step = keeper.restore(abstract(init()))
    assert step == 1 and equal(state, init())
    (line,) = told
    assert re.search(DAMAGES[damage], line)
    assert line.startswith("Warning: the checkpoint of step 2 is damaged (") and line.endswith("Using step 1.")
    keeper.save(2, train_step(state), wait=True)
    keeper.save(3, init(), wait=True)
    keeper.save(4, init(), wait=True)
  # Step 1 was read and verified; later checkpoints have not been read yet.
  assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3", "4", "damaged-2"]


@pytest.mark.parametrize("damage", [flip, garble_score])
def test_if_no_checkpoint_is_whole_that_is_told_and_nothing_is_changed(tmp_path, damage):
  saved(tmp_path, 1, 2)
  for step in ("1", "2"):
    damage(tmp_path / step)
  before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
  with pytest.raises(UserError, match=r"none of its checkpoints is intact \(2: .*; 1: .*\). Nothing was changed"):
    Checkpoints(tmp_path).restore(abstract(init()))
  assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_a_device_without_room_is_not_taken_for_damage(tmp_path, monkeypatch):
  saved(tmp_path, 1, 2)

  def full(*_, **__):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

  with Checkpoints(tmp_path) as keeper, monkeypatch.context() as patch:
    patch.setattr(ocp.PyTreeCheckpointHandler, "restore", full)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Out of memory"):
      keeper.restore(abstract(init()))
  assert manager.steps(tmp_path) == [1, 2]


def test_fingerprints_see_every_bit_and_no_sharding():
  rng = np.random.default_rng(0)
  for dtype in (np.float32, ml_dtypes.bfloat16, np.int8, np.uint16, np.bool_):
    array = rng.integers(0, 2, (8, 3)).astype(dtype)
    whole = fingerprints({"x": array})
    assert whole == fingerprints({"x": jnp.asarray(array)})
    spread = jax.device_put(array, rows(mesh(4, 2))(array))
    assert whole == fingerprints({"x": spread})
    if dtype is not np.bool_:
      for byte in range(array.nbytes):
        other = array.copy()
        other.reshape(-1).view(np.uint8)[byte] ^= 1 << (byte % 8)
        assert whole != fingerprints({"x": other})
    swapped = array.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    assert (whole == fingerprints({"x": swapped})) == np.array_equal(array, swapped)
  keys = [fingerprints({"key": jax.random.key(seed), "n": seed}) for seed in (1, 2)]
  assert keys[0]["key"] != keys[1]["key"] and keys[0]["n"] != keys[1]["n"]
