import multiprocessing
import os
import time

import pytest

from zoo.data import cache
from zoo.errors import UserError


def test_the_cache_is_where_the_user_wants_it(monkeypatch, tmp_path):
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
  assert cache.cache_folder() == tmp_path
  monkeypatch.delenv("ZOO_CACHE")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  assert cache.cache_folder() == tmp_path / "zoo"


def test_a_folder_is_made_once(tmp_path):
  for content in "ab":
    cache.made_once(tmp_path / "here", lambda folder, content=content: (folder / "x").write_text(content))
  assert (tmp_path / "here" / "x").read_text() == "a"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
  def half(folder):
    (folder / "x").write_text("half")
    assert not (tmp_path / "here").exists()
    raise ArithmeticError

  with pytest.raises(ArithmeticError):
    cache.made_once(tmp_path / "here", half)
  assert [path.name for path in tmp_path.iterdir()] == ["here.lock"]


def test_what_a_killed_process_left_behind_is_removed(tmp_path):
  (tmp_path / "here.abc").mkdir()
  (tmp_path / "other.abc").mkdir()
  cache.made_once(tmp_path / "here", lambda folder: None)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "here.lock", "other.abc"]


def test_without_locks_the_first_wins(tmp_path, monkeypatch):
  monkeypatch.setattr(cache, "fcntl", None)

  def overtaken(folder):
    (folder / "x").write_text("mine")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "x").write_text("first")

  cache.made_once(tmp_path / "here", overtaken)
  assert (tmp_path / "here" / "x").read_text() == "first"
  assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "here.lock"]


def test_a_full_disk_is_told(tmp_path):
  def full(folder):
    raise OSError(28, "No space left on device")

  with pytest.raises(UserError, match="Cannot write to the cache .*: No space left on device. Set ZOO_CACHE"):
    cache.made_once(tmp_path / "here", full)


@pytest.mark.slow
def test_processes_wait_for_the_first(tmp_path):
  processes = [multiprocessing.get_context("spawn").Process(target=make_slowly, args=(tmp_path,)) for _ in range(3)]
  for process in processes:
    process.start()
  for process in processes:
    process.join()
  assert [process.exitcode for process in processes] == [0, 0, 0]
  assert len((tmp_path / "made").read_text().splitlines()) == 1


def make_slowly(tmp_path):
  def make(folder):
    with open(tmp_path / "made", "a") as file:
      file.write(f"{os.getpid()}\n")
    time.sleep(1)

  cache.made_once(tmp_path / "here", make)
