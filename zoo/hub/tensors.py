"""Writes arrays to safetensors files, C-contiguous for all strides."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from safetensors import SafetensorError
from safetensors.numpy import save_file


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
