"""What the files of a folder should be: neither Orbax nor a disk tells when a byte of an array has changed."""

import json
import os
import pathlib
import zlib


def write(folder: str | os.PathLike, to: str | os.PathLike) -> None:
  """Lists every file under `folder` with its size and CRC-32 in the file `to`, which lies elsewhere."""
  folder = pathlib.Path(folder)
  names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
  pathlib.Path(to).write_text(json.dumps({name: _sum(folder / name) for name in names}, indent=1))


def damaged(folder: str | os.PathLike, listed: str | os.PathLike) -> str | None:
  """What is wrong with the files under `folder` by the list in the file `listed`; None if nothing is."""
  folder = pathlib.Path(folder)
  for name, (size, crc) in json.loads(pathlib.Path(listed).read_text()).items():
    path = folder / name
    if not path.exists():
      return f"the file {name} is missing"
    if path.stat().st_size != size:
      return f"the file {name} has {path.stat().st_size} bytes instead of {size}"
    if _sum(path)[1] != crc:
      return f"the bytes of the file {name} have changed since they were written"
  return None


def _sum(path: pathlib.Path, block: int = 1 << 24) -> tuple[int, int]:
  crc = 0
  with open(path, "rb") as file:
    while data := file.read(block):
      crc = zlib.crc32(data, crc)
  return path.stat().st_size, crc
