"""Writes arrays to safetensors files, C-contiguous for all strides."""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from safetensors import SafetensorError
from safetensors.numpy import save_file

# Of each dtype: the unsigned dtype of its size, and the bits of its exponent.
FLOATS = {
  "bfloat16": (np.uint16, np.uint16(0x7F80)),
  "float16": (np.uint16, np.uint16(0x7C00)),
  "float32": (np.uint32, np.uint32(0x7F800000)),
  "float64": (np.uint64, np.uint64(0x7FF0000000000000)),
}
PART = 1 << 20


def to_host(array: Any) -> np.ndarray:
  """`array` in this host's memory, same shape and dtype. Collective if sharded over hosts: all hosts must call it."""
  if isinstance(array, jax.Array) and not array.is_fully_addressable:
    return multihost_utils.process_allgather(array, tiled=True)
  return np.asarray(array)


def write_tensors(path: str | os.PathLike, tensors: Mapping[str, Any], metadata: dict[str, str] | None = None) -> None:
  """Writes `{name: array}` to a safetensors file at `path`.

  Args:
    path: the file, which is replaced if it exists.
    tensors: numpy or addressable jax arrays of any shape, strides and byte order, with a dtype of the format.
    metadata: strings for the file's header.

  Raises:
    OSError: the disk is full, or the format has no such dtype.

  >>> import tempfile
  >>> from safetensors.numpy import load_file
  >>> kernel = np.arange(6.0).reshape(2, 3)
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   write_tensors(f"{folder}/one.safetensors", {"kernel": kernel.T})
  ...   load_file(f"{folder}/one.safetensors")["kernel"].tolist() == kernel.T.tolist()
  True
  """
  # safetensors writes an array's memory unchanged and declares it row-major. `order="C"` copies other layouts;
  # np.ascontiguousarray would make a scalar one-dimensional.
  contiguous = {name: np.asarray(to_host(tensor), order="C") for name, tensor in tensors.items()}
  try:
    save_file(contiguous, path, metadata)
  except SafetensorError as error:
    raise OSError(str(error)) from error


def is_finite(array: np.ndarray) -> bool:
  """Whether a host array has neither NaN nor an infinity; True for ints and for floats of 8 bits.

  >>> is_finite(np.ones(3, np.float16)), is_finite(np.array([1.0, np.nan]))
  (True, False)
  """
  info = FLOATS.get(array.dtype.name)
  if info is None:
    return True
  unsigned, exponent = info
  bits = np.asarray(array, order="C").reshape(-1).view(unsigned)
  # All bits of the exponent are set; isfinite of a bfloat16 is slower. In parts, for little memory.
  parts = (bits[start : start + PART] & exponent for start in range(0, len(bits), PART))
  return not any((part == exponent).any() for part in parts)


def warn_not_finite(where: str, names: Sequence[str]) -> None:
  """Warns of the tensors with these names in the files `where`, which have NaN or infinities, if there are any.

  Outputs of such a model may look plausible: the argmax of NaN is 0.
  """
  if names:
    more = f" and in {len(names) - 1} other tensors" if len(names) > 1 else ""
    warnings.warn(
      f"{where}: values of '{names[0]}'{more} are not finite (nan or inf). The weights are damaged: fetch them again.",
      stacklevel=3,
    )
