"""Attention patterns as values: which keys a query attends to, by position alone.

A pattern is hashable, compares by value, and is called as `pattern(query_positions, key_positions)` -> bool with arrays
of NumPy or JAX. `a | b` is the union of two, `a & b` their intersection. Kernels ask it for more than single pairs:
`tiles`, which blocks of pairs are visible, so that they skip the others.

>>> band = window(4, "both sides") | GlobalTokens((0,))
>>> band(np.array([[5]]), np.arange(9)[None])
array([[ True, False, False,  True,  True,  True,  True,  True, False]])
"""

import dataclasses
import functools
import math
import operator
from typing import Any

import numpy as np

NONE, SOME, ALL = 0, 1, 2  # What `Pattern.tiles` says of a tile's pairs: which of them are visible.


class Pattern:
  """A set of visible (query position, key position) pairs.

  A subclass is a frozen dataclass of plain values with `__call__`; it may also compute `tiles` without all pairs.

  Attributes:
    grain: tiles of this size, and its multiples, follow the pattern's own blocks; 1: it has none.
    heads: number of heads with a pattern each, on an axis before the queries'; None: one pattern for all.
  """

  @property
  def grain(self) -> int:
    return 1

  @property
  def heads(self) -> int | None:
    return None

  def __call__(self, query_positions, key_positions):
    """int32 [..., queries, 1], [..., 1, keys] -> bool [..., queries, keys], or [heads, queries, keys]"""
    raise NotImplementedError

  def at(self, length: int) -> "Pattern":
    """The pattern of sequences of this length, where it depends on it. ValueError: there is none."""
    return self

  def tiles(self, size: int, count: int) -> np.ndarray:
    """Visibility by tiles of size x size pairs: int8 [count, count] or [heads, count, count]

    NONE, SOME or ALL of a tile's pairs. SOME may stand for a tile that has none or all.
    """
    rows = []
    for first in range(0, size * count, size):
      queries = np.arange(first, first + size)[:, None]
      seen = np.asarray(self(queries, np.arange(size * count)[None]))
      rows.append(np.moveaxis(seen.reshape(*seen.shape[:-1], count, size), -3, -2))
    pairs = np.stack(rows, axis=-4)  # [..., row of tiles, tile, query, key]
    return np.where(pairs.all((-2, -1)), ALL, np.where(pairs.any((-2, -1)), SOME, NONE)).astype(np.int8)

  def __or__(self, other):
    return Union(_parts(Union, self, other))

  def __and__(self, other):
    if isinstance(self, Window) and isinstance(other, Window) and 1 in (self.dilation, other.dilation):
      ends = [_least(self.back, other.back), _least(self.ahead, other.ahead)]
      return Window(*ends, max(self.dilation, other.dilation))
    return Intersection(_parts(Intersection, self, other))


@dataclasses.dataclass(frozen=True)
class Window(Pattern):
  """The keys from `back` before a query to `ahead` after it, both inclusive, every `dilation`-th of them.

  Args:
    back, ahead: distances in positions, multiples of dilation; None: unlimited.
    dilation: distances are multiples of it. Longformer, https://arxiv.org/abs/2004.05150, figure 2c.
  """

  back: int | None
  ahead: int | None
  dilation: int = 1

  def __post_init__(self):
    ints(dilation=self.dilation, least=1)
    ints(back=self.back, ahead=self.ahead, least=0)

  def __call__(self, query_positions, key_positions):
    if (self.back, self.ahead, self.dilation) == (None, 0, 1):
      return key_positions <= query_positions
    distance = query_positions - key_positions
    if self.back is not None and self.back == self.ahead:
      visible = abs(distance) <= self.back
    else:
      sides = [distance == distance] * (self.back is None and self.ahead is None)
      sides += [] if self.back is None else [distance <= self.back]
      sides += [] if self.ahead is None else [distance >= -self.ahead]
      visible = functools.reduce(operator.and_, sides)
    return visible if self.dilation == 1 else visible & (distance % self.dilation == 0)

  def tiles(self, size, count):
    distance = size * (np.arange(count)[:, None] - np.arange(count)[None])
    nearest, farthest = distance - (size - 1), distance + (size - 1)
    back, ahead = (size * count if end is None else end for end in (self.back, self.ahead))
    full = (farthest <= back) & (nearest >= -ahead) & (self.dilation == 1)
    return np.where(full, ALL, np.where((nearest <= back) & (farthest >= -ahead), SOME, NONE)).astype(np.int8)


# What `size` means in the words of papers and configs: the ends (back, ahead) of a window.
CONVENTIONS = {
  "both sides": lambda size: (size // 2, size // 2),
  "each side": lambda size: (size, size),
  "each side, exclusive": lambda size: (size - 1, size - 1),
  "causal": lambda size: (size - 1, 0),
  "causal, exclusive": lambda size: (size, 0),
}


def window(size: int, convention: str = "both sides", dilation: int = 1) -> Window:
  """A window by its size as papers and configs state it.

  Args:
    size: in tokens, see `convention`; an int of at least 1.
    convention: who is counted.
      "both sides": a token, and size / 2 on each side. size is even. Longformer, ModernBERT.
      "each side": a token, and `size` on each side.
      "each side, exclusive": a token, and those on each side at a distance below `size`.
      "causal": `size` tokens that end with the token itself. Mistral, Gemma.
      "causal, exclusive": a token, and `size` before it.
    dilation: these distances count every `dilation`-th token.

  Raises:
    ValueError: there is no such convention, or `size` or `dilation` does not fit it.

  >>> window(512), window(4096, "causal")
  (Window(back=256, ahead=256, dilation=1), Window(back=4095, ahead=0, dilation=1))
  """
  if convention not in CONVENTIONS:
    raise ValueError(f"convention is {convention!r}. It may be: {'; '.join(CONVENTIONS)}.")
  ints(window=size, dilation=dilation, least=1)
  if convention == "both sides" and size % 2:
    raise ValueError(f"window is {size}. It must be even, half of it on each side, e.g. {size + 1}.")
  back, ahead = CONVENTIONS[convention](size)
  return Window(back * dilation, ahead * dilation, dilation)


@dataclasses.dataclass(frozen=True)
class GlobalTokens(Pattern):
  """Tokens at fixed positions that see all tokens, and that all tokens see.

  For global tokens that differ between the rows of a batch: `SequenceInfo.is_global`.

  Args:
    positions: ints; those below 0 count from the end, for which the pattern must be told the length by `at`.
    sees, seen: one direction alone, where the other is False.
  """

  positions: tuple[int, ...]
  sees: bool = True
  seen: bool = True

  def __post_init__(self):
    object.__setattr__(self, "positions", tuple(self.positions))
    if not self.positions or not (self.sees or self.seen):
      raise ValueError(f"{self} is empty. Name a position, and let it see or be seen.")
    if wrong := [place for place in self.positions if not _is_int(place)]:
      raise ValueError(f"Global tokens are at {wrong[0]!r}. Positions are ints.")

  def at(self, length):
    if wrong := [place for place in self.positions if not -length <= place < length]:
      raise ValueError(f"There is a global token at {wrong[0]}, beyond the {length} tokens of a sequence. Drop it.")
    return dataclasses.replace(self, positions=tuple(sorted({place % length for place in self.positions})))

  def __call__(self, query_positions, key_positions):
    if min(self.positions) < 0:
      raise ValueError(f"Global tokens at {self.positions} count from the end. Use at(length).")
    sides = (query_positions, self.sees), (key_positions, self.seen)
    return operator.or_(*(self._among(x) if wanted else x != x for x, wanted in sides))

  def _among(self, positions):
    """Whether positions are of global tokens, by runs of them: the first tokens are one run."""
    places = np.unique(self.positions)
    runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    return functools.reduce(operator.or_, [(positions >= run[0]) & (positions <= run[-1]) for run in runs])

  def tiles(self, size, count):
    inside = np.zeros(size * count, bool)
    inside[list(self.positions)] = True
    inside = inside.reshape(count, size)
    state = np.where(inside.all(1), ALL, np.where(inside.any(1), SOME, NONE)).astype(np.int8)
    blank = np.zeros((count, count), np.int8)
    return np.maximum(blank + state[:, None] * self.sees, blank + state[None] * self.seen)


@dataclasses.dataclass(frozen=True)
class _Several(Pattern):
  parts: tuple[Pattern, ...]

  @property
  def grain(self):
    return math.lcm(*(part.grain for part in self.parts))

  @property
  def heads(self):
    return next((part.heads for part in self.parts if part.heads is not None), None)

  def at(self, length):
    return dataclasses.replace(self, parts=tuple(part.at(length) for part in self.parts))

  def _visible(self, query_positions, key_positions):
    """What each part lets through, of the same rank."""
    parts = [part(query_positions, key_positions) for part in self.parts]
    rank = max(part.ndim for part in parts)
    return [part.reshape((1,) * (rank - part.ndim) + part.shape) for part in parts]


@dataclasses.dataclass(frozen=True)
class Union(_Several):
  """Pairs that any of the parts lets through: `a | b`."""

  def __call__(self, query_positions, key_positions):
    return functools.reduce(operator.or_, self._visible(query_positions, key_positions))

  def tiles(self, size, count):
    return functools.reduce(np.maximum, [part.tiles(size, count) for part in self.parts])


@dataclasses.dataclass(frozen=True)
class Intersection(_Several):
  """Pairs that all of the parts let through: `a & b`."""

  def __call__(self, query_positions, key_positions):
    return functools.reduce(operator.and_, self._visible(query_positions, key_positions))

  def tiles(self, size, count):
    return functools.reduce(np.minimum, [part.tiles(size, count) for part in self.parts])


def _parts(kind: type, *patterns: Any) -> tuple[Pattern, ...]:
  if wrong := [pattern for pattern in patterns if not isinstance(pattern, Pattern)]:
    raise TypeError(f"{wrong[0]!r} is not a pattern. Patterns combine with patterns alone.")
  return tuple(part for each in patterns for part in (each.parts if isinstance(each, kind) else (each,)))


def _least(*ends):
  return min((end for end in ends if end is not None), default=None)


def _is_int(value: Any) -> bool:
  return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def ints(*, least: int, **values: Any) -> None:
  """ValueError for values that are no ints of at least `least`; None passes."""
  for name, value in values.items():
    if value is not None and (not _is_int(value) or value < least):
      raise ValueError(f"{name} is {value!r}. It must be an int of at least {least}.")
