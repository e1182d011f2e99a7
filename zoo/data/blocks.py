"""Arrays on disk whose blocks are verified against checksums on first access.

Opening one reads nothing, and unverified data are never used.
"""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import UserError

BLOCK = 1 << 20  # Bytes: verifying one takes about a millisecond.


def block_sums(path: Path) -> np.ndarray:
  """CRC-32 of every BLOCK bytes of a file: uint32 [blocks]; the last block may be shorter."""
  sums = []
  with open(path, "rb") as file:
    while data := file.read(BLOCK):
      sums.append(zlib.crc32(data))
  return np.array(sums, np.uint32)


class VerifiedArray:
  """A flat array backed by a file, read by forward slices or by indices. A process verifies each block once.

  Args:
    path: the file.
    dtype: of the array.
    sums: from `block_sums`, when the file was written.
    discard: called before the error if a block is corrupt.

  Raises:
    UserError: a block that is read has changed.
  """

  def __init__(self, path: Path, dtype: Any, sums: np.ndarray, discard: Callable[[], None]):
    self._made_of = path, dtype, sums, discard
    self._values = np.memmap(path, dtype, "r")
    self._bytes: Any = np.memmap(path, np.uint8, "r")
    self._verified = np.zeros(len(sums), bool)
    self.dtype = self._values.dtype

  def __len__(self) -> int:
    return len(self._values)

  def __reduce__(self) -> tuple:  # Unpickling reopens the file.
    return VerifiedArray, self._made_of

  def __getitem__(self, indices: slice | np.ndarray) -> np.ndarray:
    if isinstance(indices, slice):
      start, stop, _ = indices.indices(len(self))
      blocks = np.arange(self._block_of(start), self._block_of(stop - 1) + 1 if stop > start else 0)
    else:
      blocks = np.unique(self._block_of(indices % len(self)))
    if not self._verified[blocks].all():
      self._verify(blocks[~self._verified[blocks]].tolist())
    return self._values[indices]

  def _block_of(self, index: Any) -> Any:
    return index * self.dtype.itemsize // BLOCK

  def _verify(self, blocks: list[int]) -> None:
    path, _, sums, discard = self._made_of
    for block in blocks:
      if zlib.crc32(memoryview(self._bytes)[block * BLOCK : (block + 1) * BLOCK]) != sums[block]:
        discard()
        raise UserError(
          f"{path} is damaged: its bytes from {block * BLOCK:,} on have changed since they were written. Run the "
          "same command again: the file is rebuilt, and a run resumes from its newest checkpoint."
        )
      self._verified[block] = True
