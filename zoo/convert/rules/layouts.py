"""Layouts of our arrays in published checkpoints: rules that convert in both directions.

A rule names an array of ours by its path (layers one by one: `stack/layer_0/...`) and theirs by its name in the file. A
layout maps axes; the rest is reshaping. Nothing is computed, so reading and writing are lossless.
"""

import math
from typing import Any, NamedTuple

import numpy as np


class Layout(NamedTuple):
  """An axis layout: ours becomes theirs by joining axes, then transposing.

  Args:
    groups: for each axis of the joined array, our axes that it joins; () is an axis of length 1. None: ours.
    order: theirs = joined.transpose(order). None: no transposition.
  """

  groups: tuple[tuple[int, ...], ...] | None = None
  order: tuple[int, ...] | None = None

  def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of theirs from the shape of ours."""
    joined = self._joined(ours)
    return joined if self.order is None else tuple(joined[axis] for axis in self.order)

  def write(self, ours: np.ndarray) -> np.ndarray:
    """Converts our array, of any shape `ours`, to theirs, of `shape(ours.shape)`; the dtype is kept."""
    joined = ours.reshape(self._joined(ours.shape))
    return joined if self.order is None else joined.transpose(self.order)

  def read(self, theirs: Any, shape: tuple[int, ...]) -> Any:
    """Converts theirs to ours, of this shape; numpy or JAX arrays."""
    return (theirs if self.order is None else theirs.transpose(np.argsort(self.order))).reshape(shape)

  def spec(self, ours: tuple) -> tuple | None:
    """The partition spec of theirs given `ours`, one entry per axis; None if no spec expresses it."""
    groups = self.groups or tuple((axis,) for axis in range(len(ours)))
    if any(ours[axis] is not None for group in groups for axis in group[1:]):
      return None  # Of joined axes only the first shards contiguously.
    joined = tuple(ours[group[0]] if group else None for group in groups)
    return joined if self.order is None else tuple(joined[axis] for axis in self.order)

  def _joined(self, ours: tuple[int, ...]) -> tuple[int, ...]:
    return ours if self.groups is None else tuple(math.prod(ours[axis] for axis in group) for group in self.groups)


SAME = Layout()
LINEAR = Layout(order=(1, 0))  # [in, out] <-> torch's [out, in]
HEADS = Layout(((0,), (1, 2)), (1, 0))  # [dim, heads, head_dim] <-> [heads * head_dim, dim]
HEADS_BIAS = Layout(((0, 1),))  # [heads, head_dim] <-> [heads * head_dim]
HEADS_OUT = Layout(((0, 1), (2,)), (1, 0))  # [heads, head_dim, dim] <-> [dim, heads * head_dim]
CONV = Layout(order=(3, 2, 0, 1))  # [height, width, in, out] <-> [out, in, height, width]
CONV_1D = Layout(order=(2, 1, 0))  # [width, in, out] <-> [out, in, width]
ONE_BEFORE = Layout(((), (0,), (1,)))  # [a, b] <-> [1, a, b]
FLAT = Layout(((0, 1),))  # [1, dim] <-> [dim]
SCALAR = Layout(((),))  # [] <-> [1]


class Rule(NamedTuple):
  """Maps one array of ours (or one entry along its first axis) to one of theirs (or a slice of one axis of it).

  Args:
    ours: path of our array; collections other than params are prefixed, "batch_stats/norm/mean".
      "" for arrays that we do not have: theirs is not read, and written as `value`.
    theirs: their name.
    layout: the axis layout.
    index: the entry along our first axis, e.g. of an expert; None: the full array.
    stretch: (axis, start, total) of theirs, if several of ours are concatenated in it; None: all of it.
    value: int64 [], the value of theirs if we have no such array.
  """

  ours: str
  theirs: str
  layout: Layout = SAME
  index: int | None = None
  stretch: tuple[int, int, int] | None = None
  value: int = 0

  def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of theirs if our full array has the shape `ours`."""
    shape = self.layout.shape(ours if self.index is None else ours[1:])
    if self.stretch is None:
      return shape
    axis, _, total = self.stretch
    return (*shape[:axis], total, *shape[axis + 1 :])

  def read(self, theirs: np.ndarray, ours: tuple[int, ...]) -> np.ndarray:
    """Reads our array, of shape `ours`, from theirs, of shape `self.shape(ours)`; the dtype is kept."""
    return self.layout.read(self.part(theirs, ours), ours if self.index is None else ours[1:])

  def part(self, theirs: np.ndarray, ours: tuple[int, ...]) -> np.ndarray:
    """The slice of theirs that holds our array, of shape `ours`, in their layout."""
    return theirs if self.stretch is None else theirs[self._slices(ours if self.index is None else ours[1:])]

  def write(self, ours: np.ndarray, theirs: np.ndarray | None) -> np.ndarray:
    """Writes our array into theirs, of `self.shape(ours.shape)` and our dtype.

    Args:
      ours: our full array, also with an `index`.
      theirs: the result of other rules for the same tensor so far, changed in place; None: there is none.
    """
    part = ours if self.index is None else ours[self.index]
    written = self.layout.write(part)
    if self.stretch is None:
      return written
    theirs = np.zeros(self.shape(ours.shape), ours.dtype) if theirs is None else theirs
    theirs[self._slices(part.shape)] = written
    return theirs

  def _slices(self, ours: tuple[int, ...]) -> tuple[slice, ...]:
    axis, start, _ = self.stretch or (0, 0, 0)
    return (slice(None),) * axis + (slice(start, start + self.layout.shape(ours)[axis]),)


def linear(ours: str, theirs: str, *, bias: bool = True) -> list[Rule]:
  """Rules of a torch `Linear`: `ours/kernel`, `ours/bias` <-> `theirs.weight`, `theirs.bias`."""
  return [Rule(f"{ours}/kernel", f"{theirs}.weight", LINEAR), *_bias(ours, theirs, SAME, bias)]


def norm(ours: str, theirs: str, *, bias: bool = True) -> list[Rule]:
  """Rules of a LayerNorm, or without bias of an RMSNorm."""
  return [Rule(f"{ours}/scale", f"{theirs}.weight"), *_bias(ours, theirs, SAME, bias)]


def batch_norm(ours: str, theirs: str) -> list[Rule]:
  """Rules of a torch `BatchNorm` of any rank, with its running statistics.

  Torch also counts batches, for norms without momentum; the zoo does not, and writes 0.
  """
  statistics = {"mean": "running_mean", "var": "running_var"}
  rules = [Rule(f"batch_stats/{ours}/{name}", f"{theirs}.{running}") for name, running in statistics.items()]
  return [*norm(ours, theirs), *rules, Rule("", f"{theirs}.num_batches_tracked")]


def embedding(ours: str, theirs: str) -> list[Rule]:
  """Rules of a torch `Embedding`."""
  return [Rule(f"{ours}/embedding", f"{theirs}.weight")]


def heads(ours: str, theirs: str, *, bias: bool = True) -> list[Rule]:
  """Rules of a `Linear` to heads: a query, key or value."""
  return [Rule(f"{ours}/kernel", f"{theirs}.weight", HEADS), *_bias(ours, theirs, HEADS_BIAS, bias)]


def heads_out(ours: str, theirs: str, *, bias: bool = True) -> list[Rule]:
  """Rules of a `Linear` from heads: the output of an attention."""
  return [Rule(f"{ours}/kernel", f"{theirs}.weight", HEADS_OUT), *_bias(ours, theirs, SAME, bias)]


def attention(ours: str, query: str, key: str, value: str, out: str, *, bias: bool = True) -> list[Rule]:
  """Rules of the four projections of an attention, from the names of their four `Linear`s."""
  into = [rule for name, theirs in (("query", query), ("key", key), ("value", value))
          for rule in heads(f"{ours}/{name}", theirs, bias=bias)]  # fmt: skip
  return [*into, *heads_out(f"{ours}/out", out, bias=bias)]


def mlp(ours: str, up: str, down: str, gate: str | None = None, *, bias: bool = True) -> list[Rule]:
  """Rules of a feed-forward network, plain or gated."""
  parts = {"up": up, "down": down} | ({} if gate is None else {"gate": gate})
  return [rule for name, theirs in parts.items() for rule in linear(f"{ours}/{name}", theirs, bias=bias)]


def _bias(ours: str, theirs: str, layout: Layout, present: bool) -> list[Rule]:
  return [Rule(f"{ours}/bias", f"{theirs}.bias", layout)] * present
