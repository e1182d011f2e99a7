"""Paths at `https://`: files, and folders that servers list, by fsspec and aiohttp (`pip install aiohttp`)."""

import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import fsspec

from zoo.data.sources.retries import tried
from zoo.errors import UserError
from zoo.extras import install

SCHEMES = ("http://", "https://")


def is_web(path: str | os.PathLike) -> bool:
  """Whether a path is on a web server."""
  return os.fspath(path).startswith(SCHEMES)


def remote_of(path: str | os.PathLike) -> tuple[Any, str]:
  """The fsspec filesystem of a path on a web server, and its name in it."""
  if importlib.util.find_spec("aiohttp") is None:
    raise UserError(f"{path} cannot be reached: aiohttp is not installed. Install it with: {install('http')}.")
  return fsspec.core.url_to_fs(os.fspath(path))


class WebPath(os.PathLike):
  """A path on a web server, with the part of pathlib's interface that is used. A name with a dot is a file."""

  def __init__(self, url: str):
    self.url = url.rstrip("/")

  def __fspath__(self) -> str:
    return self.url

  def __str__(self) -> str:
    return self.url

  def __repr__(self) -> str:
    return f"WebPath({self.url!r})"

  def __eq__(self, other: object) -> bool:
    return isinstance(other, WebPath) and other.url == self.url

  def __hash__(self) -> int:
    return hash(self.url)

  def __truediv__(self, name: str | os.PathLike) -> "WebPath":
    name = os.fspath(name)
    return self if name in ("", ".") else WebPath(f"{self.url}/{name}")

  @property
  def name(self) -> str:
    """The last part of the path."""
    return self.url.rpartition("/")[2]

  @property
  def suffix(self) -> str:
    """The file extension, with its dot."""
    return os.path.splitext(self.name)[1]

  @property
  def parent(self) -> "WebPath":
    """The parent folder; the server itself at the top."""
    above = self.url.rpartition("/")[0]
    return self if above.endswith(":/") else WebPath(above)

  def with_suffix(self, suffix: str) -> "WebPath":
    """The path with another extension."""
    return WebPath(os.path.splitext(self.url)[0] + suffix)

  def is_file(self) -> bool:
    """Whether it exists on the server."""
    return self.suffix != "" and self._is_there()

  def is_dir(self) -> bool:
    """Whether it is a folder that the server lists."""
    system, name = remote_of(self)
    return self.suffix == "" and bool(system.isdir(f"{name}/"))

  def exists(self) -> bool:
    """Whether it exists on the server."""
    return self.is_dir() if self.suffix == "" else self._is_there()

  def iterdir(self) -> Iterator["WebPath"]:
    """The entries that the server lists."""
    system, name = remote_of(self)
    return (WebPath(entry) for entry in system.ls(f"{name}/", detail=False))

  def read_bytes(self) -> bytes:
    """Downloads the file."""
    system, name = remote_of(self)
    return tried(lambda: system.cat_file(name), self)

  def _is_there(self) -> bool:
    system, name = remote_of(self)
    try:
      tried(lambda: system.info(name), self)  # Its `exists` would start a download.
    except FileNotFoundError:
      return False
    except OSError as error:
      raise UserError(f"{self} cannot be read: {error.strerror or error}.") from error
    return True
