"""Local and bucket files: paths, atomic writes and checksums.

`gs://bucket/run` is read and written through etils.epath and fsspec.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import tempfile
import zlib
from collections.abc import Collection, Generator, Mapping
from typing import Any

import fsspec
from etils import epath

from zoo.errors import UserError
from zoo.extras import install

EXTRAS = {"gs": ("gcs", "gcsfs"), "s3": ("s3", "s3fs"), "az": ("az", "adlfs")}  # protocol of fsspec, package


def is_remote(path: str | os.PathLike) -> bool:
  """Whether a path is in a bucket."""
  return "://" in os.fspath(path)


def as_path(path: str | os.PathLike) -> epath.Path:
  """The `epath.Path` of a local path or bucket URL.

  Raises:
    UserError: a bucket of an unknown kind, or one whose package is not installed.
  """
  scheme, separator, _ = os.fspath(path).partition("://")
  if separator:
    if scheme not in EXTRAS:
      raise UserError(f"{path}: there are folders here and at {', '.join(f'{name}://' for name in EXTRAS)}.")
    protocol, package = EXTRAS[scheme]
    try:
      if importlib.util.find_spec("tensorflow") is None:  # etils would use it.
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
      way_out = install("gcs") if scheme == "gs" else f"pip install {package}"
      raise UserError(f"{path} cannot be reached: {package} is not installed. Install it with: {way_out}.") from error
  return epath.Path(path)


def check_folder(path: str | os.PathLike, way_out: str) -> None:
  """UserError for a local path that cannot be a folder: it is a file, or inside one; `way_out` ends the message.

  >>> check_folder("runs/new", "Choose another.")
  """
  if is_remote(path):
    return
  for part in (pathlib.Path(path), *pathlib.Path(path).parents):
    if part.is_dir():
      return
    if part.exists() or part.is_symlink():
      what = "a broken link" if part.is_symlink() else "a file"
      inside = "" if part == pathlib.Path(path) else f", and {path} would be in it"
      raise UserError(f"{part} is {what}, not a folder{inside}. {way_out}")


def make_folder(path: epath.Path | pathlib.Path) -> None:
  """Creates a folder and its parents if needed; UserError on failure."""
  check_folder(path, "Name another folder.")
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f"{path} cannot be created: {error.strerror}.") from error


@contextlib.contextmanager
def local_copy(path: str | os.PathLike) -> Generator[pathlib.Path]:
  """Context that yields a local path: `path` itself, or a temporary copy of a file in a bucket."""
  if not is_remote(path):
    yield pathlib.Path(path)
    return
  with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder) / epath.Path(path).name
    epath.Path(path).copy(copy)
    yield copy


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Generator[pathlib.Path]:
  """Atomic write: a temporary path beside `path`, renamed to `path` when the block succeeds, else removed.

  For a file in a bucket the path is local and uploaded when the block succeeds: a bucket shows only complete objects.

  Raises:
    UserError: the disk is full, or the folder is not writable. `path` is then unchanged.
  """
  if is_remote(path):
    with tempfile.TemporaryDirectory() as folder:
      try:
        yield (temporary := pathlib.Path(folder) / "file")
        epath.Path(temporary).copy(path, overwrite=True)
      except OSError as error:
        raise UserError(f"{path} cannot be written: {error}. The old file is intact.") from error
    return
  path = pathlib.Path(path)
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  try:
    temporary.touch()
    mode = (
      temporary.stat().st_mode
    )  # The mode of any new file here: safetensors makes files readable by their owner only.
    yield temporary
    temporary.chmod(mode)
    with open(temporary, "rb") as written:
      os.fsync(written.fileno())
    os.replace(temporary, path)
  except OSError as error:
    raise UserError(f"{path} cannot be written: {error.strerror or error}. The old file is intact.") from error
  finally:
    with contextlib.suppress(OSError):  # On a read-only disk this fails too.
      temporary.unlink(missing_ok=True)


def write_checksums(folder: str | os.PathLike, to: str | os.PathLike) -> None:
  """Writes sizes and CRC-32 checksums of all files under `folder` to the file `to`, which is outside it."""
  folder = pathlib.Path(folder)
  names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
  pathlib.Path(to).write_text(json.dumps({name: _sum(folder / name) for name in names}, indent=1))


def corrupt_files(
  folder: str | os.PathLike, listed: str | os.PathLike | Mapping[str, Any], by_size: Collection[str] = ()
) -> str | None:
  """Verifies the files under `folder` against the checksums in the file `listed`, or its content -> what is wrong, or
  None.

  Files of `by_size` are compared by size alone, without reading them.
  """
  folder = pathlib.Path(folder)
  sums = listed if isinstance(listed, Mapping) else json.loads(pathlib.Path(listed).read_text())
  for name, (size, crc) in sums.items():
    path = folder / name
    if not path.exists():
      return f"the file {name} is missing"
    if path.stat().st_size != size:
      return f"the file {name} has {path.stat().st_size} bytes instead of {size}"
    if name not in by_size and _sum(path)[1] != crc:
      return f"the bytes of the file {name} have changed since they were written"
  return None


def _sum(path: pathlib.Path, block: int = 1 << 24) -> tuple[int, int]:
  crc = 0
  with open(path, "rb") as file:
    while data := file.read(block):
      crc = zlib.crc32(data, crc)
  return path.stat().st_size, crc
