"""Vectors of a whole data set, in a file of their own instead of in memory."""

import tempfile
import weakref
from typing import Any

import numpy as np


class Vectors:
  """float32 rows in a temporary file, which goes when the last view of it does.

  >>> vectors = Vectors()
  >>> vectors.append(np.eye(3))
  >>> vectors.rows(np.array([2, 0]))[:1]
  array([[0., 0., 1.]], dtype=float32)
  """

  def __init__(self):
    self._file: Any = tempfile.TemporaryFile()
    weakref.finalize(self, self._file.close)
    self._shape = (0, 0)

  def append(self, rows: np.ndarray) -> None:
    """Adds rows, [n, dim]."""
    self._shape = (self._shape[0] + len(rows), rows.shape[1])
    self._file.write(np.ascontiguousarray(rows, np.float32).tobytes())

  def rows(self, index: np.ndarray) -> "Rows":
    """The rows of these indices, int [n], in this order."""
    self._file.flush()
    return Rows(self, index)

  def read(self, index: np.ndarray) -> np.ndarray:
    """float32 [n, dim], in memory. Not by a mapping of the file, whose pages would count as this process's memory."""
    count, dim = self._shape
    read = np.empty((len(index), dim), np.float32)
    # Neighbours are read at once.
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    for start, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(index)]):
      if start < end:
        self._file.seek(int(index[start]) * dim * 4)
        read[start:end] = np.frombuffer(self._file.read((end - start) * dim * 4), np.float32).reshape(-1, dim)
    return read


class Rows:
  """Some rows of `Vectors`: `rows[slice]` is an array of them, `rows[i]` one."""

  def __init__(self, vectors: Vectors, index: np.ndarray):
    self._vectors, self._index = vectors, np.asarray(index)

  def __len__(self) -> int:
    return len(self._index)

  def __getitem__(self, which: Any) -> np.ndarray:
    if isinstance(which, slice):
      return self._vectors.read(self._index[which])
    return self._vectors.read(self._index[[which]])[0]
