"""Reads the data files in the package, which `scripts/build_data.py` builds. NOTICE lists their origins."""

import io
import lzma
from pathlib import Path

import numpy as np

from zoo.errors import UserError

FOLDER = Path(__file__).parent / "embedded"


def lines(name: str) -> list[str]:
  """The lines of a text file in UTF-8, compressed if its name ends in .xz: `lines("vocab/bert.txt.xz")`."""
  data = _bytes_of(name)
  try:
    text = (lzma.decompress(data) if name.endswith(".xz") else data).decode()
  except (lzma.LZMAError, UnicodeDecodeError) as error:
    raise _damaged(name, error) from error
  return text.removesuffix("\n").split("\n")  # Not splitlines: a speech may hold other line separators.


def tiles(name: str, size: int, mode: str) -> np.ndarray:
  """The square tiles of a sheet image, row by row: uint8 [count, size, size] or [count, size, size, channels].

  Args:
    name: file of the sheet.
    size: pixels per side of a tile.
    mode: Pillow's mode: `RGBA`, or `L` for grey.
  """
  from PIL import Image

  try:
    pixels = np.asarray(Image.open(io.BytesIO(_bytes_of(name))).convert(mode))
  except (OSError, SyntaxError) as error:  # Pillow's exceptions for truncated or invalid images.
    raise _damaged(name, error) from error
  rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
  grid = pixels.reshape(rows, size, columns, size, *pixels.shape[2:]).swapaxes(1, 2)
  return grid.reshape(rows * columns, size, size, *pixels.shape[2:])


def _bytes_of(name: str) -> bytes:
  try:
    return (FOLDER / name).read_bytes()
  except OSError as error:
    raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> UserError:
  return UserError(f"{FOLDER / name} is missing or corrupt: {error}. Restore it: git checkout zoo/data/embedded.")
