"""Local files, and remote ones in buckets and on web servers (`gs://BUCKET/shards/*.tar`), by fsspec."""

import contextlib
import glob
import io
import os
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from etils import epath

from zoo.data.sources.retries import as_os_error, tried
from zoo.data.sources.web import WebPath, is_web, remote_of
from zoo.errors import UserError
from zoo.storage import as_path, is_remote

StoragePath = Path | epath.Path | WebPath


def at(path: str | os.PathLike) -> StoragePath:
  """A local or remote path object; UserError for a bucket whose filesystem is not installed."""
  if is_web(path):
    return WebPath(os.fspath(path))
  return as_path(path) if is_remote(path) else Path(path)


def listed(folder: StoragePath) -> Iterable[str]:
  """All files below a folder and the folders in it, relative to it; of a server those that its pages list."""
  if not is_remote(folder):
    return [os.path.relpath(os.path.join(root, file), folder) for root, _, files in os.walk(folder) for file in files]
  system, path = _remote(folder)
  if not is_web(folder):
    return [os.path.relpath(file, path) for file in tried(lambda: system.find(path), folder)]
  with contextlib.suppress(FileNotFoundError):  # The server has no page that lists it.
    files = tried(lambda: system.find(f"{path}/", on_error="raise"), folder)
    return [file.removeprefix(f"{path}/") for file in files if file.startswith(f"{path}/")]
  return []


def matching(folder: StoragePath, pattern: str) -> list[str]:
  """The files below a folder, relative to it, that match a pattern such as `*/*.tar` or `**/*.tar`."""
  if not is_remote(folder):
    return [file for file in glob.glob(pattern, root_dir=folder, recursive=True) if (folder / file).is_file()]
  system, path = _remote(folder)
  matches = tried(lambda: system.glob(f"{path.rstrip('/')}/{pattern}", detail=True), folder)
  return [os.path.relpath(file, path) for file, about in matches.items() if about["type"] == "file"]


def read_part(path: str | os.PathLike, start: int = 0, size: int | None = None) -> bytes:
  """Reads `size` bytes from byte `start` on, fewer at the end of the file; by default all. OSError on failure."""
  if is_remote(path):
    return tried(lambda: _remote_part(path, start, size), path)
  with open(path, "rb") as file:
    file.seek(start)
    return file.read(-1 if size is None else size)


def _remote_part(path: str | os.PathLike, start: int, size: int | None) -> bytes:
  system, name = _remote(path)
  try:
    content = system.cat_file(name, start=start, end=None if size is None else start + size)
  except Exception as error:
    if getattr(error, "status", None) == 416:  # The file is missing.
      return b""
    raise
  if size is not None and len(content) > size:
    raise OSError(f"{path}: the server sends whole files and no parts (Range) of them")
  return content


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Generator[BinaryIO]:
  """Opens a file for sequential reading."""
  if not is_remote(path):
    with open(path, "rb") as file:
      yield file
    return
  system, name = _remote(path)
  with as_os_error(), system.open(name, "rb") as file:
    # tarfile needs full blocks, which not every file of fsspec returns at once.
    yield io.BufferedReader(file, 2**20)


@contextlib.contextmanager
def seekable(path: str | os.PathLike) -> Generator[Any]:
  """Opens a file for random access. Reads of a remote one raise UserError, not OSError."""
  with open(path, "rb") if not is_remote(path) else io.BufferedReader(_Remote(path), 2**16) as file:
    yield file


class _Remote(io.RawIOBase):
  """A remote file with io's raw interface."""

  def __init__(self, path: str | os.PathLike):
    self.path, self.size, self.place = path, status(path)[0], 0

  def readable(self) -> bool:
    return True

  def seekable(self) -> bool:
    return True

  def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
    self.place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.size}[whence]
    return self.place

  def readinto(self, buffer: Any) -> int:
    size = max(0, min(len(buffer), self.size - self.place))
    try:
      content = read_part(self.path, self.place, size) if size else b""
    except OSError as error:
      raise UserError(f"{self.path} cannot be read: {error.strerror or error}.") from error
    buffer[: len(content)] = content
    self.place += len(content)
    return len(content)


def status(path: str | os.PathLike) -> tuple[int, str]:
  """The size of a file, and a version str that changes with it. OSError if it is missing."""
  if not is_remote(path):
    state = os.stat(path)
    return state.st_size, str(state.st_mtime_ns)
  about = tried(lambda: _about(path), path)
  if about.get("size") is None:
    raise OSError(f"{path}: the server does not say how long it is")
  keys = ("etag", "ETag", "md5Hash", "mtime", "LastModified", "created")  # Keys of different bucket libraries.
  return int(about["size"]), str(next((about[key] for key in keys if key in about), ""))


def _about(path: str | os.PathLike) -> dict[str, Any]:
  system, name = _remote(path)
  return system.info(name)


def _remote(path: str | os.PathLike) -> tuple[Any, str]:
  return remote_of(path) if is_web(path) else fsspec.core.url_to_fs(os.fspath(as_path(path)))
