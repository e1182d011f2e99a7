"""Folders here and in buckets: `gs://bucket/run` is read and written through etils.epath and fsspec."""

import contextlib
import importlib.util
import os
import pathlib
import tempfile
from collections.abc import Generator

import fsspec
from etils import epath

from zoo.errors import UserError
from zoo.extras import install

EXTRAS = {"gs": ("gcs", "gcsfs"), "s3": ("s3", "s3fs"), "az": ("az", "adlfs")}  # protocol of fsspec, package


def is_remote(path: str | os.PathLike) -> bool:
  """Whether a path is in a bucket."""
  return "://" in os.fspath(path)


def place(path: str | os.PathLike) -> epath.Path:
  """A path to work with, here or in a bucket.

  Raises:
    UserError: it is in a bucket of an unknown kind, or the package that opens these is not installed.
  """
  scheme, found, _ = os.fspath(path).partition("://")
  if found:
    if scheme not in EXTRAS:
      raise UserError(f"{path}: there are folders here and at {', '.join(f'{name}://' for name in EXTRAS)}.")
    protocol, package = EXTRAS[scheme]
    try:
      if importlib.util.find_spec("tensorflow") is None:  # etils would use that.
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
      way_out = install("gcs") if scheme == "gs" else f"pip install {package}"
      raise UserError(f"{path} cannot be reached: {package} is not installed. Install it with: {way_out}.") from error
  return epath.Path(path)


@contextlib.contextmanager
def local_copy(path: str | os.PathLike) -> Generator[pathlib.Path]:
  """The path itself if it is here; of a file in a bucket a copy, for as long as the block runs."""
  if not is_remote(path):
    yield pathlib.Path(path)
    return
  with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder) / epath.Path(path).name
    epath.Path(path).copy(copy)
    yield copy
