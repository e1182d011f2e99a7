"""Facts about the tokens of a batch (padding, positions, segments) as one value that layers pass on."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class SequenceInfo(NamedTuple):
  """Padding mask, positions and segment ids of a batch. A model makes it once, from its keyword arguments.

  valid: bool [batch, length], True = a real token; others are masked. None: all are real.
  positions: int32 [batch or 1, length]. None: counted from 0 in each sequence; with a cache, from its end. Without
    segment_ids a causal mask lets a sequence start wherever those of real tokens do not rise, so that nothing sees what
    follows it; those of one call with a cache rise.
  segment_ids: int32 [batch, length], the packed sequence of its row that a token belongs to; it attends to its
    own only. None: a row is one sequence.
  is_global: bool [batch, length], tokens that see all of their sequence, and are seen by it, whatever the window, in
    layers that have such tokens. None: there are none.

  >>> SequenceInfo(segment_ids=jnp.array([[0, 0, 0, 1, 1]])).token_positions(5)
  Array([[0, 1, 2, 0, 1]], dtype=int32)
  """

  valid: jax.Array | None = None
  positions: jax.Array | None = None
  segment_ids: jax.Array | None = None
  is_global: jax.Array | None = None

  def packed_positions(self):
    """int32 [batch or 1, length] if positions were passed or rows are packed; None: they count from 0."""
    packed = self.positions is None and self.segment_ids is not None
    return segment_positions(self.segment_ids) if packed else self.positions

  def token_positions(self, length):
    """The position of every token: int32 [batch or 1, length]."""
    positions = self.packed_positions()
    return jnp.arange(length, dtype=jnp.int32)[None] if positions is None else positions


def segment_positions(segment_ids, real=None):
  """Each token's position within its packed sequence: int32 [batch, length] -> int32 [batch, length]

  real: bool [batch, length], the tokens that count; a token's position is how many of them precede it. None: all do.
  """
  positions = jnp.arange(segment_ids.shape[1], dtype=jnp.int32)[None]
  positions = positions if real is None else jnp.cumsum(real, axis=1, dtype=jnp.int32) - real
  starts = jnp.pad(segment_ids[:, 1:] != segment_ids[:, :-1], ((0, 0), (1, 0)), constant_values=True)
  return positions - jax.lax.cummax(jnp.where(starts, positions, 0), axis=1)


def segments_of(positions, valid=None):
  """Segment ids of packed sequences, inferred from positions that restart: int32 [batch or 1, length] -> the same.

  A sequence starts at a real token whose position is not above that of the real token before it; padding belongs to
  the sequence around it.

  >>> segments_of(jnp.array([[0, 1, 2, 0, 1]]))
  Array([[0, 0, 0, 1, 1]], dtype=int32)

  valid: bool [batch, length], True = a real token, or None: all are.
  """
  before = positions[:, :-1]
  if valid is not None:
    index = jnp.where(valid, jnp.arange(valid.shape[1], dtype=jnp.int32)[None], -1)
    real = jax.lax.cummax(index, axis=1)[:, :-1]
    positions = jnp.broadcast_to(positions, valid.shape)
    before = jnp.where(real < 0, -1, jnp.take_along_axis(positions, jnp.maximum(real, 0), axis=1))
  begins = positions[:, 1:] <= before
  begins = begins if valid is None else begins & valid[:, 1:].astype(bool)
  return jnp.pad(jnp.cumsum(begins, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))
