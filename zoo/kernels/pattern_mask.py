"""Attention patterns as masks of splash attention, which reads the tiles that it needs."""

import dataclasses
import functools

import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from zoo.layers.patterns import ALL, SOME, Pattern


@dataclasses.dataclass(frozen=True)
class PatternMask(masks.Mask):
  """The mask of one head.

  Args:
    pattern: of the sequence's length.
    sizes: queries and keys, padded.
    head: which one of a pattern that differs between heads; 0 of others.
    slots: number of further keys, which all queries see.
  """

  pattern: Pattern
  sizes: tuple[int, int]
  head: int = 0
  slots: int = 0

  @property
  def shape(self):
    return self.sizes[0], self.sizes[1] + self.slots

  def __getitem__(self, idx):
    """bool [queries, keys] of a pair of slices."""
    queries, keys = (np.arange(size, dtype=np.int32)[part] for part, size in zip(idx, self.shape, strict=True))
    inside = int((keys < self.sizes[1]).sum())
    visible = np.ones((len(queries), len(keys)), bool)
    visible[:, :inside] = self._visible(queries, keys[:inside])
    return visible

  def _visible(self, queries, keys):
    """bool [queries, keys], both of them runs; a whole tile of one kind without asking for its pairs."""
    size, single = len(queries), self.pattern.heads is None
    if single and size > 1 and size == len(keys) and queries[0] % size == keys[0] % size == 0:
      kind = _tiles(self.pattern, size, max(self.sizes) // size)[queries[0] // size, keys[0] // size]
      if kind != SOME:
        return kind == ALL
    visible = np.asarray(self.pattern(queries[:, None], keys[None]))
    return visible if single else visible[self.head]


@functools.lru_cache(maxsize=8)
def _tiles(pattern, size, count):
  return pattern.tiles(size, count)
