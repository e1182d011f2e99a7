"""Reads `flax_model.msgpack`, the Flax checkpoints of transformers 4, with torch's names and layouts.

Format: https://flax.readthedocs.io/en/latest/api_reference/flax.serialization.html.
"""

import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import msgpack
import numpy as np

from zoo.convert.rules.layouts import Layout, Rule
from zoo.errors import UserError

_ARRAY = 1  # The extension type of an array: (shape, name of the dtype, bytes).
_CHUNKED = "__msgpack_chunked_array__"  # Marks an array of more than 1 GiB, stored in pieces.
# Flax kernels have outputs last, torch's first; in Flax convolution windows come before channels.
_ORDERS = {2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1)}


class FlaxTensors(Mapping):
  """name -> array, like `files.Tensors`; the full file is in memory, as msgpack cannot be read in parts."""

  def __init__(self, arrays: Mapping[str, np.ndarray]):
    self.arrays = dict(arrays)

  def __getitem__(self, name: str) -> np.ndarray:
    return self.arrays[name]

  def __iter__(self) -> Iterator[str]:
    return iter(self.arrays)

  def __len__(self) -> int:
    return len(self.arrays)

  @property
  def shapes(self) -> dict[str, tuple[int, ...]]:
    """name -> shape."""
    return {name: array.shape for name, array in self.arrays.items()}

  @property
  def dtypes(self) -> dict[str, np.dtype]:
    """name -> dtype."""
    return {name: array.dtype for name, array in self.arrays.items()}

  def only(self, names: Iterable[str]) -> "FlaxTensors":
    """The subset with these names."""
    return FlaxTensors({name: self.arrays[name] for name in names})


def open_flax(*paths: pathlib.Path) -> FlaxTensors:
  """Opens a flax_model.msgpack, or its pieces, with torch's names.

  Raises:
    UserError: a file is corrupt or holds anything else.
  """
  return FlaxTensors({name: array for path in paths for name, array in _read(path)})


def flax_rules(rules: Iterable[Rule]) -> list[Rule]:
  """Rules for writing Flax trees of transformers 4: names are paths in the tree, layouts are Flax's.

  Raises:
    UserError: one of our arrays is only a part of theirs, which no supported model has.
  """
  rules = list(rules)
  return [_flax(rule, {rule.ours for rule in rules}) for rule in rules]


def to_torch(path: Sequence[str], array: Any) -> tuple[str, Any]:
  """Converts an array of an old Flax tree to torch's name and layout."""
  return torch_name(path), array.transpose(_ORDERS[array.ndim]) if path[-1] == "kernel" else array


def torch_name(path: Sequence[str]) -> str:
  """Torch's name of an array in an old Flax tree.

  >>> torch_name(("encoder", "layer", "0", "dense", "kernel"))
  'encoder.layer.0.dense.weight'
  """
  *scopes, last = path
  return ".".join([*scopes, {"kernel": "weight", "scale": "weight", "embedding": "weight"}.get(last, last)])


def from_torch(path: Sequence[str], array: Any) -> Any:
  """Inverse of `to_torch`: torch's array in Flax's layout at `path`."""
  return array.transpose(np.argsort(_ORDERS[array.ndim])) if path[-1] == "kernel" else array


def _flax(rule: Rule, all_names: set[str]) -> Rule:
  if rule.index is not None:
    raise UserError(f"{rule.theirs} is made of several arrays: the zoo does not know their names in old Flax models.")
  before, _, last_of_ours = rule.ours.rpartition("/")
  *scopes, last = rule.theirs.split(".")
  if last == "weight":
    # Norms without a bias were custom modules of transformers and kept torch's name.
    keeps_name = last_of_ours == "scale" and f"{before}/bias" not in all_names
    last = "weight" if keeps_name else last_of_ours
  (groups, order), stretch = rule.layout, rule.stretch
  if last_of_ours == "kernel":
    # Ours -> torch's -> theirs: usually two transpositions that cancel. A kernel that
    # torch stores in our layout is that of a `Conv1D`, a matrix.
    order = order or tuple(range(2 if groups is None else len(groups)))
    transposed = _ORDERS[len(order)]
    order = tuple(order[axis] for axis in np.argsort(transposed))
    order = None if order == tuple(range(len(order))) else order
    stretch = stretch and (transposed[stretch[0]], *stretch[1:])
  return Rule(rule.ours, "/".join([*scopes, last]), Layout(groups, order), stretch=stretch)


def _read(path: pathlib.Path) -> list[tuple[str, np.ndarray]]:
  try:
    tree = msgpack.unpackb(path.read_bytes(), ext_hook=_array, raw=False, strict_map_key=False)
    return [to_torch(parts, array) for parts, array in _leaves(tree, ())]
  except (OSError, ValueError, TypeError, KeyError, RecursionError, msgpack.exceptions.UnpackException) as error:
    reason = f"{str(error)[:200] or type(error).__name__}"
    raise UserError(f"{path} is not a valid flax_model.msgpack: {reason}. Fetch it again.") from None


def _array(code: int, data: bytes) -> Any:
  if code != _ARRAY:
    raise ValueError(f"it contains type {code}, not an array")
  shape, name, buffer = msgpack.unpackb(data, raw=True)
  name = name.decode("ascii")
  dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
  if dtype.kind not in "fiubV" or dtype.hasobject:
    raise ValueError(f"it contains an array of {name[:50]}")
  return np.frombuffer(buffer, dtype).reshape(shape)


def _leaves(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
  if isinstance(tree, np.ndarray):
    yield path, tree
  elif isinstance(tree, dict) and _CHUNKED in tree:
    shape = tuple(tree["shape"][str(i)] for i in range(len(tree["shape"])))
    pieces = [tree["chunks"][str(i)] for i in range(len(tree["chunks"]))]
    yield path, np.concatenate(pieces).reshape(shape)
  elif isinstance(tree, dict):
    for name, branch in tree.items():
      yield from _leaves(branch, (*path, str(name)))
  else:
    raise ValueError(f"'{'/'.join(path)[:100]}' is a {type(tree).__name__}, not an array")
