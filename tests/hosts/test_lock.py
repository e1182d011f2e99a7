"""One job at a time in a run folder."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from zoo.checkpoints.manager import Checkpoints, steps
from zoo.errors import UserError
from zoo.hosts import lock

HOLDS = """
import sys, time
from zoo.hosts.lock import RunLock

with RunLock(sys.argv[1], patience=0, note=print):
  print("holds", flush=True)
  time.sleep(600)
"""


def claimed(folder, note=lambda line: None, patience=0):
  return lock.RunLock(folder, patience=patience, note=note)


def test_a_second_job_is_refused_until_the_first_has_ended_however_it_did(tmp_path):
  told = []
  other = subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path], stdout=subprocess.PIPE, text=True)
  try:
    assert other.stdout.readline() == "holds\n"
    before = (tmp_path / ".lock").read_text()
    with pytest.raises(UserError, match=f"is in use by process {other.pid} on .*, since .* End that one first"):
      claimed(tmp_path)
    assert (tmp_path / ".lock").read_text() == before
    # The second job waits for the first, which is killed once it is reported; its lock ends with it.
    with claimed(tmp_path, note=lambda line: told.append(line) or other.kill(), patience=100) as mine:
      mine.check()
    (line,) = told
    assert f"process {other.pid} on" in line and line.endswith("waiting up to 100 s for it to end.")
  finally:
    other.kill()
    other.communicate()


def test_where_there_are_no_locks_the_later_job_takes_over_and_the_earlier_one_saves_no_more(tmp_path, monkeypatch):
  monkeypatch.setattr(lock, "fcntl", None)
  with claimed(tmp_path) as first, Checkpoints(tmp_path / "checkpoints", check=first.check) as saver:
    saver.save(1, {"x": jnp.zeros(3)}, wait=True)
    with claimed(tmp_path) as second:
      with pytest.raises(UserError, match="was taken over by process .*. This job has saved nothing since"):
        saver.save(2, {"x": jnp.zeros(3)})
      second.check()
  assert steps(tmp_path / "checkpoints") == [1]


def test_what_killed_jobs_have_not_finished_is_removed(tmp_path):
  (tmp_path / "bad").mkdir()
  for name in (".params.safetensors.7.tmp", "bad/.step_3.0_of_1.npz.7.tmp", "bad/step_2.0_of_1.npz", "page.html"):
    (tmp_path / name).touch()
  with claimed(tmp_path):
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
  assert left == {".lock", "bad", "bad/step_2.0_of_1.npz", "page.html"}


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(UserError, match="file, not a folder, and .*run would be in it. Choose another --config.w"):
    claimed(tmp_path / "file" / "run")


def test_a_host_that_does_not_see_what_the_first_one_writes_says_so(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  with pytest.raises(UserError, match="Host 1 does not see what host 0 writes to .* all hosts share"):
    claimed(tmp_path)
  assert not list(tmp_path.iterdir())
