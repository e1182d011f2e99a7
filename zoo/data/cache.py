"""The user's cache folder, shared safely by several processes on one machine."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Generator
from pathlib import Path

from zoo import storage
from zoo.errors import UserError, shown, tell

try:
  import fcntl
except ImportError:  # Windows has no flock.
  fcntl = None

SUMS = "checksums.json"  # Checksums of an entry's files, beside them.
KEY = "the entry's name"  # In SUMS: an entry that was renamed holds something else.
CHEAP = 2**28  # Bytes that are read in a few tenths of a second.


def cache_folder() -> Path:
  """The cache folder: `$ZOO_CACHE`, else `$XDG_CACHE_HOME/zoo`, else `~/.cache/zoo`."""
  if "ZOO_CACHE" in os.environ:
    return Path(os.environ["ZOO_CACHE"])
  return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "zoo"


@contextlib.contextmanager
def locked(path: Path) -> Generator[bool]:
  """Context that holds the lock file `path`: one process per machine. The system releases it when a process dies.

  Yields False if the file system has no locks; then several processes may do the same work.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, "a") as file:
    try:
      if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX)
      has_lock = fcntl is not None
    except OSError:
      has_lock = False
    yield has_lock  # Closing the file releases the lock.


def build_once(folder: Path, make: Callable[[Path], None], *, verified_later: Collection[str] = ()) -> Path:
  """Builds a cache entry: `folder`, filled by `make(temporary folder)` if missing. It appears atomically.

  Sizes and checksums of its files are stored beside them and verified each time: an entry that a disk, a power cut or
  another program has changed is rebuilt, with a warning.

  Args:
    folder: of the entry.
    make: writes its files.
    verified_later: files of which, above CHEAP bytes, only sizes are compared: their bytes are verified by
      their reader (`zoo.data.blocks`), which calls `discard` if they have changed.
  """
  damage = _damage(folder, verified_later) if folder.exists() else None
  if folder.exists() and damage is None:
    return folder
  try:
    with locked(folder.with_name(folder.name + ".lock")) as has_lock:
      if has_lock:  # Left by a killed process.
        for stale in folder.parent.glob(f"{folder.name}.*/"):
          shutil.rmtree(stale, ignore_errors=True)
      if folder.exists() and (damage := _damage(folder, verified_later)):  # Another process may have been first.
        tell(f"Warning: {folder} in the cache is damaged ({damage}). It is rebuilt.")
        discarded = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        folder.rename(discarded / "damaged")  # Processes that have its files open keep them.
        shutil.rmtree(discarded, ignore_errors=True)
      if not folder.exists():
        temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
          make(temporary)
          storage.write_checksums(temporary, temporary / SUMS)
          sums = json.loads((temporary / SUMS).read_text()) | {KEY: folder.name}
          (temporary / SUMS).write_text(json.dumps(sums, indent=1))
          _sync(temporary)
          temporary.rename(folder)
          _sync_folder(folder.parent)
        except BaseException:
          shutil.rmtree(temporary, ignore_errors=True)
          raise
  except OSError as error:
    if not folder.exists() or (
      damage := _damage(folder, verified_later)
    ):  # Without locks another process may have been first.
      why = f", and {folder.name} in it is damaged ({damage})" if damage else ""
      way_out = "Set ZOO_CACHE to a writable folder with free space."
      raise UserError(
        f"Cannot write to the cache {folder.parent}{why}: {error.strerror or error}. {way_out}"
      ) from error
  return folder


def is_cheap(file: Path) -> bool:
  """Whether a file is small enough to be verified against its checksum at every use."""
  return file.stat().st_size <= CHEAP


def discard(folder: Path) -> None:
  """Invalidates an entry, so that the next use rebuilds it; processes that have its files open keep them."""
  with contextlib.suppress(OSError):
    (folder / SUMS).unlink()


def _damage(folder: Path, verified_later: Collection[str]) -> str | None:
  """Describes the damage to an entry; None if its files are intact."""
  try:
    sums = json.loads((folder / SUMS).read_text())
    listed = {*sums, SUMS} - {KEY}
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    if listed ^ present:
      return f"{min(listed ^ present)} is {'missing' if listed - present else 'unexpected'}"
    if (name := sums.pop(KEY, folder.name)) != folder.name:
      return f"it is the entry {shown(name, 80)}"
    later = {name for name in verified_later if not is_cheap(folder / name)}
    return storage.corrupt_files(folder, sums, by_size=later)
  except FileNotFoundError:
    return f"it has no {SUMS}"
  except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
    return f"{SUMS} cannot be read: {' '.join(str(error).split())[:200]}"


def _sync(folder: Path) -> None:
  """Flushes all files in `folder` to disk: otherwise a rename may reach the disk before the files' contents."""
  for path in folder.iterdir():
    with open(path, "rb") as file:
      os.fsync(file.fileno())
  _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
  with contextlib.suppress(OSError):  # Some systems cannot open folders.
    number = os.open(folder, os.O_RDONLY)
    try:
      os.fsync(number)
    finally:
      os.close(number)
