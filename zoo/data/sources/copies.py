"""Local copies of remote files in the cache folder, downloaded in parts; interrupted downloads resume.

`$ZOO_CACHE/files` keeps up to `$ZOO_CACHE_LIMIT` GB, by default half of the disk; least recently used files are
removed first.
"""

import contextlib
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from zoo.data.cache import cache_folder, locked
from zoo.data.sources.files import StoragePath, read_part, status
from zoo.errors import UserError
from zoo.progress import progress
from zoo.storage import is_remote

PART = 2**23  # Bytes that are fetched at a time.


class Remote(NamedTuple):
  """A remote file in one version."""

  path: StoragePath
  size: int
  version: str

  @property
  def copy(self) -> Path:
    """Path of its local copy."""
    key = hashlib.blake2b(f"{self.path}\0{self.size}\0{self.version}".encode(), digest_size=16).hexdigest()
    return cache_folder() / "files" / key / os.path.basename(os.fspath(self.path))


def remote(path: StoragePath) -> Remote:
  """Looks up a remote file and its current version; UserError if it cannot be reached."""
  try:
    return Remote(path, *status(path))
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error


def limit() -> int:
  """Maximum bytes of all copies."""
  setting = os.environ.get("ZOO_CACHE_LIMIT")
  if setting is None:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return (shutil.disk_usage(folder).free + sum(size for _, size, _ in _copies())) // 2
  try:
    return int(float(setting) * 1e9)
  except ValueError:
    raise UserError(f"ZOO_CACHE_LIMIT is {setting!r}. It must be a number of GB.") from None


def ready(file: Remote) -> Path | None:
  """The local copy, if it is complete; else None."""
  with contextlib.suppress(OSError):
    if file.copy.stat().st_size == file.size:
      os.utime(file.copy)  # Marks it as used.
      return file.copy
  return None


def fetched(file: Remote) -> Path:
  """The local copy, downloaded now if missing; other processes of the machine wait for the first.

  Raises:
    UserError: the file cannot be read, or the cache cannot be written.
  """
  copy = ready(file)
  if copy is not None:
    return copy
  part = file.copy.with_name(f"{file.copy.name}.part")
  try:
    with locked(file.copy.parent.with_suffix(".lock")):
      copy = ready(file)
      if copy is not None:
        return copy
      _make_room(file)
      part.parent.mkdir(parents=True, exist_ok=True)
      with open(part, "ab") as local, progress(f"fetching {file.path}", file.size / 1e6, "MB") as advance:
        advance(local.tell() / 1e6)
        while local.tell() < file.size:
          content = read_part(file.path, local.tell(), min(PART, file.size - local.tell()))
          if not content:
            raise OSError(f"it ends after {local.tell():,} of {file.size:,} bytes")
          local.write(content)
          local.flush()
          advance(len(content) / 1e6)
        os.fsync(local.fileno())
      os.replace(part, file.copy)
  except OSError as error:
    raise UserError(f"{file.path} cannot be copied to {part.parent}: {error.strerror or error}.") from error
  return file.copy


def nearby(path: StoragePath) -> StoragePath:
  """`path` itself if it is local or larger than the limit of all copies; else its local copy."""
  if not is_remote(path):
    return path
  file = remote(path)
  return fetched(file) if file.size <= limit() else path


def _make_room(file: Remote) -> None:
  """Removes the least recently used copies until this one fits."""
  copies, most = sorted(_copies()), limit()
  total = sum(size for _, size, _ in copies) + file.size
  for _, size, folder in copies:
    if total <= most:
      return
    if folder != file.copy.parent and not _is_growing(folder):
      shutil.rmtree(folder, ignore_errors=True)  # Processes that have the file open keep it.
      total -= size


def _is_growing(folder: Path) -> bool:
  """Whether another process is downloading it."""
  with contextlib.suppress(OSError):
    return any(time.time() - part.stat().st_mtime < 60 for part in folder.glob("*.part"))
  return False


def _copies() -> list[tuple[float, int, Path]]:
  """Time of last use, bytes and folder of each copy."""
  copies = []
  for folder in (cache_folder() / "files").glob("*/"):
    with contextlib.suppress(OSError):
      states = [path.stat() for path in folder.iterdir()]
      copies.append((max((state.st_mtime for state in states), default=0.0), sum(s.st_size for s in states), folder))
  return copies
