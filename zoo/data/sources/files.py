"""Local and remote data files (`gs://BUCKET/shards/*.tar`, by fsspec): listing, full and partial reads."""

import contextlib
import glob
import io
import os
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from etils import epath

from zoo.errors import UserError
from zoo.storage import as_path, is_remote

Place = Path | epath.Path


def at(path: str | os.PathLike) -> Place:
  """A local or remote path object; UserError for a bucket whose filesystem is not installed."""
  return as_path(path) if is_remote(path) else Path(path)


def listed(folder: Place) -> Iterable[str]:
  """All files in a folder and the folders in it, relative to it."""
  if not is_remote(folder):
    return [os.path.relpath(os.path.join(root, file), folder) for root, _, files in os.walk(folder) for file in files]
  system, path = _remote(folder)
  with _as_os_error():
    return [os.path.relpath(file, path) for file in system.find(path)]


def matching(folder: Place, pattern: str) -> list[str]:
  """The files in a folder, relative to it, that a pattern such as `*/*.tar` or `**/*.tar` matches."""
  if not is_remote(folder):
    return [file for file in glob.glob(pattern, root_dir=folder, recursive=True) if (folder / file).is_file()]
  system, path = _remote(folder)
  with _as_os_error():
    matches = system.glob(f"{path.rstrip('/')}/{pattern}", detail=True)
  return [os.path.relpath(file, path) for file, about in matches.items() if about["type"] == "file"]


def read_part(path: str | os.PathLike, start: int = 0, size: int | None = None) -> bytes:
  """`size` bytes from byte `start` on, fewer where the file ends; by default the whole file. OSError if it fails."""
  if is_remote(path):
    system, name = _remote(path)
    with _as_os_error():
      return system.cat_file(name, start=start, end=None if size is None else start + size)
  with open(path, "rb") as file:
    file.seek(start)
    return file.read(-1 if size is None else size)


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Generator[BinaryIO]:
  """Opens a file for sequential reading."""
  if not is_remote(path):
    with open(path, "rb") as file:
      yield file
    return
  system, name = _remote(path)
  with _as_os_error(), system.open(name, "rb") as file:
    # tarfile asks for whole blocks, which not every file of fsspec gives at once.
    yield io.BufferedReader(file, 2**20)


@contextlib.contextmanager
def seekable(path: str | os.PathLike) -> Generator[Any]:
  """Opens a file for reading here and there."""
  if not is_remote(path):
    with open(path, "rb") as file:
      yield file
    return
  system, name = _remote(path)
  with _as_os_error(), system.open(name, "rb", cache_type="readahead") as file:
    yield file


def status(path: str | os.PathLike) -> tuple[int, str]:
  """The size of a file, and a version str that changes with it. OSError if it is not there."""
  if not is_remote(path):
    state = os.stat(path)
    return state.st_size, str(state.st_mtime_ns)
  system, name = _remote(path)
  with _as_os_error():
    about = system.info(name)
  keys = ("etag", "ETag", "md5Hash", "mtime", "LastModified", "created")  # Of the libraries of different buckets.
  return int(about["size"]), str(next((about[key] for key in keys if key in about), ""))


def _remote(path: str | os.PathLike) -> tuple[Any, str]:
  return fsspec.core.url_to_fs(os.fspath(as_path(path)))


@contextlib.contextmanager
def _as_os_error() -> Generator[None]:
  """Converts exceptions of remote filesystems to OSError."""
  try:
    yield
  except (OSError, UserError, MemoryError):
    raise
  except Exception as error:
    raise OSError(f"{type(error).__name__}: {error}") from error
