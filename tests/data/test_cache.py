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
    cache.build_once(tmp_path / "here", lambda folder, content=content: (folder / "x").write_text(content))
  assert (tmp_path / "here" / "x").read_text() == "a"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
  def half(folder):
    (folder / "x").write_text("half")
    assert not (tmp_path / "here").exists()
    raise ArithmeticError

  with pytest.raises(ArithmeticError):
    cache.build_once(tmp_path / "here", half)
  assert [path.name for path in tmp_path.iterdir()] == ["here.lock"]


def test_what_a_killed_process_left_behind_is_removed(tmp_path):
  (tmp_path / "here.abc").mkdir()
  (tmp_path / "other.abc").mkdir()
  cache.build_once(tmp_path / "here", lambda folder: None)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "here.lock", "other.abc"]


def test_without_locks_the_first_wins(tmp_path, monkeypatch):
  monkeypatch.setattr(cache, "fcntl", None)

  def overtaken(folder):
    (folder / "x").write_text("mine")
    cache.build_once(tmp_path / "here", lambda folder: (folder / "x").write_text("first"))

  cache.build_once(tmp_path / "here", overtaken)
  assert (tmp_path / "here" / "x").read_text() == "first"
  assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "here.lock"]


def rewritten(change):
  return lambda path: path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
  "harm, name",
  [
    (rewritten(lambda content: content[: len(content) // 2]), "x"),
    (rewritten(lambda content: bytes(len(content))), "x"),
    (rewritten(lambda content: content[:7] + bytes([content[7] ^ 1]) + content[8:]), "x"),
    (rewritten(lambda content: b""), "x"),
    (os.remove, "x"),
    (os.remove, cache.SUMS),
    (rewritten(lambda content: content[:9]), cache.SUMS),
    (rewritten(lambda content: b"{}"), cache.SUMS),
    (rewritten(lambda content: b"[" * 100_000), cache.SUMS),
    (rewritten(lambda content: b'{"x": 3}'), cache.SUMS),
    (lambda path: path.with_name("y").touch(), "x"),
  ],
)
def test_an_entry_that_was_damaged_is_made_anew_with_a_warning(tmp_path, capsys, harm, name):
  make = lambda folder: (folder / "x").write_bytes(b"eleven bytes")
  folder = cache.build_once(tmp_path / "here", make)
  assert cache.build_once(folder, make) == folder and not capsys.readouterr().err
  harm(folder / name)
  cache.build_once(folder, make)
  assert (folder / "x").read_bytes() == b"eleven bytes"
  assert f"Warning: {folder} in the cache is damaged (" in capsys.readouterr().err
  cache.build_once(folder, make)
  assert not capsys.readouterr().err
  assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "here.lock"]


def test_entries_that_took_each_others_names_are_made_anew(tmp_path, capsys):
  make = lambda content: lambda folder: (folder / "x").write_bytes(content)
  one, two = (cache.build_once(tmp_path / name, make(name.encode())) for name in ("one", "two"))
  one.rename(tmp_path / "three"), two.rename(one), (tmp_path / "three").rename(two)
  assert (cache.build_once(one, make(b"one")) / "x").read_bytes() == b"one"
  assert f"Warning: {one} in the cache is damaged (it is the entry 'two'). It is rebuilt." in capsys.readouterr().err


def test_a_damaged_entry_that_cannot_be_made_anew_is_refused(tmp_path):
  folder = cache.build_once(tmp_path / "here", lambda folder: (folder / "x").write_bytes(b"whole"))
  (folder / "x").write_bytes(b"other")

  def full(folder):
    raise OSError(28, "No space left on device")

  with pytest.raises(UserError, match="Cannot write to the cache .*: No space left on device. Set ZOO_CACHE"):
    cache.build_once(folder, full)


def test_an_entry_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
  moments, fsync = [], os.fsync
  monkeypatch.setattr(os, "fsync", lambda number: (moments.append((tmp_path / "here").exists()), fsync(number)))
  cache.build_once(tmp_path / "here", lambda folder: (folder / "x").touch())
  assert moments == [False, False, False, True]  # x, its checksum, their folder; then the folder of all entries.


def test_a_full_disk_is_told(tmp_path):
  def full(folder):
    raise OSError(28, "No space left on device")

  with pytest.raises(UserError, match="Cannot write to the cache .*: No space left on device. Set ZOO_CACHE"):
    cache.build_once(tmp_path / "here", full)


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

  cache.build_once(tmp_path / "here", make)
