"""Layouts of our arrays in published checkpoints: a table of rules that is read in both directions.

A rule names an array of ours by its path (layers one by one: `stack/layer_0/...`) and theirs by its name in the file. A
layout says which axes go where; the rest is reshaping. Nothing is computed, so reading and writing lose nothing.
"""

import math
from typing import Any, NamedTuple

import numpy as np


class Layout(NamedTuple):
  """Ours becomes theirs by joining axes, then by transposing.

  Args:
    groups: for each axis of the joined array, which axes of ours it joins; () is an axis of length 1. None: as ours.
    order: theirs = joined.transpose(order). None: as it is.
  """

  groups: tuple[tuple[int, ...], ...] | None = None
  order: tuple[int, ...] | None = None

  def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of theirs, from that of ours."""
    joined = self._joined(ours)
    return joined if self.order is None else tuple(joined[axis] for axis in self.order)

  def write(self, ours: np.ndarray) -> np.ndarray:
    """Ours as theirs."""
    joined = ours.reshape(self._joined(ours.shape))
    return joined if self.order is None else joined.transpose(self.order)

  def read(self, theirs: Any, shape: tuple[int, ...]) -> Any:
    """Theirs as ours, of this shape; arrays of numpy or of JAX."""
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
  """One array of ours (or one entry along its first axis) is one array of theirs (or a stretch of one axis of it).

  Args:
    ours: path of our array; of another collection than the parameters with its name in front, "batch_stats/norm/mean".
      "" of what we have not: theirs is not read, and written as `value`.
    theirs: name of theirs.
    layout: how the axes correspond.
    index: the entry along our first axis, e.g. of an expert; None: the whole array.
    stretch: (axis, start, total) of theirs, where several of ours lie side by side in it; None: all of it.
    value: int64 [], what theirs is where we have nothing like it.
  """

  ours: str
  theirs: str
  layout: Layout = SAME
  index: int | None = None
  stretch: tuple[int, int, int] | None = None
  value: int = 0

  def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that theirs has when our whole array has the shape `ours`."""
    shape = self.layout.shape(ours if self.index is None else ours[1:])
    if self.stretch is None:
      return shape
    axis, _, total = self.stretch
    return (*shape[:axis], total, *shape[axis + 1 :])

  def read(self, theirs: np.ndarray, ours: tuple[int, ...]) -> np.ndarray:
    """Our array, of shape `ours`, read out of theirs."""
    return self.layout.read(self.part(theirs, ours), ours if self.index is None else ours[1:])

  def part(self, theirs: np.ndarray, ours: tuple[int, ...]) -> np.ndarray:
    """The slice of theirs that holds our array, of shape `ours`, in their layout."""
    return theirs if self.stretch is None else theirs[self._slices(ours if self.index is None else ours[1:])]

  def write(self, ours: np.ndarray, theirs: np.ndarray | None) -> np.ndarray:
    """Theirs with our array written in; `theirs` holds what other rules wrote so far."""
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
  """A torch `Linear`: `ours/kernel`, `ours/bias` <-> `theirs.weight`, `theirs.bias`."""
  return [Rule(f"{ours}/kernel", f"{theirs}.weight", LINEAR), *_bias(ours, theirs, SAME, bias)]


def norm(ours: str, theirs: str, *, bias: bool = True) -> list[Rule]:
  """A LayerNorm, or without bias an RMSNorm."""
  return [Rule(f"{ours}/scale", f"{theirs}.weight"), *_bias(ours, theirs, SAME, bias)]


def batch_norm(ours: str, theirs: str) -> list[Rule]:
  """A torch `BatchNorm` of any rank: a Linen one with its running statistics.

  Torch counts the batches besides, which it reads where a norm has no momentum; the zoo does not, and writes 0.
  """
  statistics = {"mean": "running_mean", "var": "running_var"}
  rules = [Rule(f"batch_stats/{ours}/{name}", f"{theirs}.{running}") for name, running in statistics.items()]
  return [*norm(ours, theirs), *rules, Rule("", f"{theirs}.num_batches_tracked")]


def embedding(ours: str, theirs: str) -> list[Rule]:
  """A torch `Embedding`."""
  return [Rule(f"{ours}/embedding", f"{theirs}.weight")]


def heads(ours: str, theirs: str, *, bias: bool = True) -> list[Rule]:
  """A `Linear` to heads: a query, key or value."""
  return [Rule(f"{ours}/kernel", f"{theirs}.weight", HEADS), *_bias(ours, theirs, HEADS_BIAS, bias)]


def heads_out(ours: str, theirs: str, *, bias: bool = True) -> list[Rule]:
  """A `Linear` from heads: the output of an attention."""
  return [Rule(f"{ours}/kernel", f"{theirs}.weight", HEADS_OUT), *_bias(ours, theirs, SAME, bias)]


def attention(ours: str, query: str, key: str, value: str, out: str, *, bias: bool = True) -> list[Rule]:
  """The four projections of an attention, from the names of their four `Linear`s."""
  into = [rule for name, theirs in (("query", query), ("key", key), ("value", value))
          for rule in heads(f"{ours}/{name}", theirs, bias=bias)]  # fmt: skip
  return [*into, *heads_out(f"{ours}/out", out, bias=bias)]


def mlp(ours: str, up: str, down: str, gate: str | None = None, *, bias: bool = True) -> list[Rule]:
  """A feed-forward network, plain or gated."""
  parts = {"up": up, "down": down} | ({} if gate is None else {"gate": gate})
  return [rule for name, theirs in parts.items() for rule in linear(f"{ours}/{name}", theirs, bias=bias)]


def _bias(ours: str, theirs: str, layout: Layout, present: bool) -> list[Rule]:
  return [Rule(f"{ours}/bias", f"{theirs}.bias", layout)] * present
