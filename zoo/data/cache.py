"""The user's cache folder, and how several processes on one machine share what lies in it."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

from zoo.errors import UserError

try:
  import fcntl
except ImportError:  # Windows has no flock.
  fcntl = None


def cache_folder() -> Path:
  """`$ZOO_CACHE`, else `$XDG_CACHE_HOME/zoo`, else `~/.cache/zoo`."""
  if "ZOO_CACHE" in os.environ:
    return Path(os.environ["ZOO_CACHE"])
  return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "zoo"


@contextlib.contextmanager
def locked(path: Path) -> Generator[bool]:
  """Holds the lock file `path`: one process of this machine at a time. The system releases it when a process dies.

  Yields False where the file system has no locks; then several processes may do the same work.
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


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
  """`folder`, filled by `make(temporary folder)` if it is not there yet. It appears whole or not at all."""
  if folder.exists():
    return folder
  try:
    with locked(folder.with_name(folder.name + ".lock")) as has_lock:
      if not folder.exists():
        if has_lock:  # What a process that was killed has left behind.
          for stale in folder.parent.glob(f"{folder.name}.*/"):
            shutil.rmtree(stale, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
          make(temporary)
          temporary.rename(folder)
        except BaseException:
          shutil.rmtree(temporary, ignore_errors=True)
          raise
  except OSError as error:
    if not folder.exists():  # Without locks another process may have been first.
      way_out = "Set ZOO_CACHE to a folder that can be written and has space."
      raise UserError(f"Cannot write to the cache {folder.parent}: {error.strerror or error}. {way_out}") from error
  return folder
