"""Attention patterns as masks of splash attention, which reads the tiles that it needs."""

import dataclasses

import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from zoo.layers.patterns import Pattern


@dataclasses.dataclass(frozen=True)
class PatternMask(masks.Mask):
  """The mask of one head.

  Args:
    pattern: of the sequence's length.
    sizes: queries and keys, padded.
    head: which one of a pattern that differs between heads; 0 of others.
  """

  pattern: Pattern
  sizes: tuple[int, int]
  head: int = 0

  @property
  def shape(self):
    return self.sizes

  def __getitem__(self, idx):
    """bool [queries, keys] of a pair of slices."""
    queries, keys = (np.arange(size, dtype=np.int32)[part] for part, size in zip(idx, self.shape, strict=True))
    visible = np.asarray(self.pattern(queries[:, None], keys[None]))
    return visible[self.head] if self.pattern.heads is not None else visible
