"""Plans of sparse attention: which keys are compared with which queries, chosen from a pattern before tracing.

A plan is NumPy: steps, each of one chunk of queries and some spans of keys. Its size grows with the visible tiles, so
linearly in the length for a window.
"""

import functools
from typing import NamedTuple

import numpy as np

from zoo.layers.patterns import ALL, NONE, Pattern, Window

TILE = 128  # Queries of a step, and keys of a span, where the pattern has no blocks of its own.
MOST = 1024  # Keys of a step, at most.


class Plan(NamedTuple):
  """Steps of sparse attention over a sequence of `length`.

  length: padded to what the steps need.
  chunk: queries of a step.
  span: keys of a span.
  queries: int32 [steps], a step's first query. The steps of a chunk follow each other.
  begins, ends: bool [steps], whether a step is the first, the last of its chunk.
  keys: int32 [steps, spans] or [steps, heads, spans], the first key of every span.
  used: bool, as `keys`: False for a span that fills up the step, and is masked.
  whole: whether all pairs of the used spans are visible, so that the pattern need not be asked.
  """

  length: int
  chunk: int
  span: int
  queries: np.ndarray
  begins: np.ndarray
  ends: np.ndarray
  keys: np.ndarray
  used: np.ndarray
  whole: bool

  @property
  def pairs(self):
    """Number of pairs that are compared, of each head."""
    return len(self.queries) * self.chunk * self.keys.shape[-1] * self.span


@functools.lru_cache(maxsize=64)
def plan(pattern: Pattern, length: int, tile: int | None = None) -> Plan:
  """The plan of a pattern for sequences of `length` tokens; tile: a multiple of the pattern's grain, or None."""
  size = TILE if tile is None else tile
  if isinstance(pattern, Window) and pattern.back is not None and pattern.ahead is not None:
    reach = pattern.back + pattern.ahead
    span = size + reach
    count = -(-length // size)
    if span <= MOST and span <= count * size:
      return _band(pattern, count, size, span)
  if tile is None:
    # Patterns of single heads are known by whole tiles only.
    own = pattern.grain >= TILE // 4 or pattern.heads is not None
    size = pattern.grain if own else pattern.grain * -(-TILE // pattern.grain)
  return _tiled(pattern, -(-length // size), size)


def _band(window: Window, count: int, size: int, span: int) -> Plan:
  """One span for each chunk, moved inwards at the ends of the sequence."""
  queries = np.arange(count, dtype=np.int32) * size
  keys = np.clip(queries - window.back, 0, count * size - span)[:, None].astype(np.int32)
  always = np.ones(count, bool)
  return Plan(count * size, size, span, queries, always, always, keys, np.ones_like(keys, bool), False)


def _tiled(pattern: Pattern, count: int, size: int) -> Plan:
  tiles = pattern.tiles(size, count)
  per_head = tiles if tiles.ndim == 3 else tiles[None]
  seen = per_head != NONE
  most = seen.sum(-1).max(0)  # Tiles of each chunk, in the head that has most.
  spans = _spans(most, max(MOST // size, 1))
  steps = np.maximum(-(-most // spans), 1)
  keys = np.zeros((len(per_head), steps.sum() * spans), np.int32)
  used = np.zeros(keys.shape, bool)
  for head, rows in enumerate(seen):
    start = 0
    for row, number in zip(rows, steps, strict=True):
      visible = np.flatnonzero(row)
      keys[head, start : start + len(visible)], used[head, start : start + len(visible)] = visible * size, True
      start += number * spans
  arrange = lambda x: x.reshape(len(per_head), -1, spans).swapaxes(0, 1)[:, 0 if tiles.ndim == 2 else slice(None)]
  ends = np.cumsum(steps)
  first, last = (np.zeros(ends[-1], bool) for _ in range(2))
  first[ends - steps], last[ends - 1] = True, True
  queries = np.repeat(np.arange(count, dtype=np.int32) * size, steps)
  whole = bool((per_head[seen] == ALL).all())
  return Plan(count * size, size, size, queries, first, last, arrange(keys), arrange(used), whole)


def _spans(counts: np.ndarray, most: int) -> int:
  """Spans of a step that compare the fewest keys, counting a step's own cost as half a span."""
  cost = {spans: np.maximum(-(-counts // spans), 1).sum() * (spans + 0.5) for spans in range(1, most + 1)}
  return min(cost, key=lambda spans: (cost[spans], -spans))
