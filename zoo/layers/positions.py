"""Position embeddings: added to token embeddings, rotated into query and key, or added to attention logits."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zoo.layers import initial, rope_scaling
from zoo.layers.mixed_precision import add


class TooLong(ValueError):
  """A sequence is longer than the table of positions."""

  def __init__(self, kind, length, max_length):
    super().__init__(
      f"{kind} positions: length {length} exceeds max_length {max_length}. Raise max_length or crop the input."
    )
    self.length, self.max_length = length, max_length


class Learned(nn.Module):
  """Learned position embeddings, float32; position p has row p + offset, as in models from fairseq."""

  max_length: int
  dim: int
  embedding_init: nn.initializers.Initializer = initial.normal(0.02)
  offset: int = 0

  @nn.compact
  def __call__(self, length, positions=None):
    """length, or positions int32 [batch or 1, length] -> float32 [batch or 1, length, dim]"""
    if length > self.max_length:
      raise TooLong("Learned", length, self.max_length)
    table = self.param("embedding", self.embedding_init, (self.offset + self.max_length, self.dim))
    return table[None, self.offset : self.offset + length] if positions is None else table[self.offset + positions]


class Fixed(Learned):
  """Position embeddings that are loaded from files and not trained."""

  def __call__(self, length, positions=None):
    """As `Learned`."""
    return jax.lax.stop_gradient(super().__call__(length, positions))


class Sinusoidal(nn.Module):
  """sin(p / wavelength^(2i/dim)) at 2i and cos of the same at 2i + 1. https://arxiv.org/abs/1706.03762, section 3.5."""

  dim: int
  wavelength: float = 10_000.0
  interleaved: bool = True  # False: all sines, then all cosines, as Marian and tensor2tensor lay them out
  max_length: int | None = None  # of a table that is made in double precision; None: each angle in float32, without end

  def __call__(self, length, positions=None):
    """length, or positions int32 [batch or 1, length] -> [batch or 1, length, dim]"""
    if self.dim % 2:
      raise ValueError(f"Sinusoidal positions: dim {self.dim} is odd. It must be even, for pairs of sine and cosine.")
    if self.max_length is not None:
      if length > self.max_length:
        raise TooLong("Sinusoidal", length, self.max_length)
      table = jnp.asarray(self._waves(np, np.arange(self.max_length)[None])[0], jnp.float32)
      return table[None, :length] if positions is None else table[positions]
    return self._waves(jnp, jnp.arange(length)[None] if positions is None else positions)

  def _waves(self, numpy, positions):
    real = np.float64 if numpy is np else np.float32
    angle = positions[:, :, None] * self.wavelength ** (-np.arange(0, self.dim, 2, dtype=real) / self.dim)[None, None]
    pair = [numpy.sin(angle), numpy.cos(angle)]
    return (
      numpy.stack(pair, -1).reshape(*angle.shape[:2], self.dim) if self.interleaved else numpy.concatenate(pair, -1)
    )


@functools.cache
def rotary(theta=10_000.0, scaling=None):
  """Rotates each pair (x[i], x[i + head_dim/2]) by position * theta^(-2i/head_dim). https://arxiv.org/abs/2104.09864

  The halves are paired, as GPT-NeoX and Llama do. Section 3.4.2 pairs neighbours: other columns, the same model.
  `scaling`, of `zoo.layers.rope_scaling`, slows the rotation for longer sequences; None: unscaled.

  Raises:
    ValueError: head_dim is odd.
  """

  def rotate(x, positions):
    """[batch, length, heads, head_dim], int32 [batch or 1, length] -> [batch, length, heads, head_dim]"""
    half = x.shape[-1] // 2
    if x.shape[-1] % 2:
      raise ValueError(f"Rotary positions: head_dim {x.shape[-1]} is odd. It must be even: pairs are rotated.")
    frequency, amplitude = (scaling or rope_scaling.none)(theta, half, positions)
    angle = (positions[:, :, None] * frequency)[:, :, None]
    sin, cos = amplitude * jnp.sin(angle), amplitude * jnp.cos(angle)
    first, second = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1).astype(x.dtype)

  return rotate


def add_positions(x, positions, info, cache=None):
  """Adds position embeddings to x.

  Args:
    x: [batch, length, dim]
    positions: called as `Learned` is.
    info: `zoo.layers.sequence.SequenceInfo`.
    cache: the collection "cache" of the layers that follow, {} or None where there is none: with it, positions are
      given.

  Raises:
    ValueError: decoding with a cache without positions.
  """
  if info.positions is None and cache:
    raise ValueError("Decoding with a cache needs positions: int32 [batch or 1, length] of the tokens. Pass positions.")
  return add(x, positions(x.shape[1], info.packed_positions()))


class RelativeBias(nn.Module):
  """T5's relative position bias, per head and bucket of distances. https://arxiv.org/abs/1910.10683, section 2.1.

  Half of the buckets hold one distance each, the widths of the others grow logarithmically up to max_distance.
  """

  num_heads: int
  num_buckets: int = 32
  max_distance: int = 128
  bidirectional: bool = True
  embedding_init: nn.initializers.Initializer = initial.normal(0.02)

  def setup(self):
    self.table = self.param("embedding", self.embedding_init, (self.num_buckets, self.num_heads))

  def __call__(self, query_positions, key_positions):
    """int32 [batch or 1, queries, 1], [batch or 1, 1, keys] -> [batch or 1, heads, queries, keys]"""
    return self.rule()(query_positions, key_positions)

  def rule(self):
    """The bias as a function for `Attention`, which knows the positions of cached keys."""
    table, options = self.table, (self.num_buckets, self.max_distance)

    def bias(query_positions, key_positions):
      bucket = relative_bucket(key_positions - query_positions, *options, bidirectional=self.bidirectional)
      return table[bucket].transpose(0, 3, 1, 2)

    return bias


def relative_bucket(distance, num_buckets, max_distance, *, bidirectional):
  """int32 key position - query position -> int32 bucket in [0, num_buckets)"""
  bucket = 0
  if bidirectional:
    num_buckets //= 2
    bucket = jnp.where(distance > 0, num_buckets, 0)
    distance = abs(distance)
  else:
    distance = -jnp.minimum(distance, 0)
  return bucket + jnp.asarray(_buckets(num_buckets, max_distance))[jnp.minimum(distance, max_distance)]


@functools.cache
def _buckets(num_buckets, max_distance):
  """The bucket of each distance up to max_distance: int32 [1 + max_distance].

  Computed here, not on the device: where the logarithm falls on an edge, its last digit decides.
  """
  exact = num_buckets // 2
  distance = np.arange(1 + max_distance, dtype=np.float32)
  steps = np.log(np.maximum(distance, 1) / exact) / np.float32(math.log(max_distance / exact)) * (num_buckets - exact)
  far = np.minimum(exact + steps.astype(np.int32), num_buckets - 1)
  return np.where(distance < exact, distance, far).astype(np.int32)


@functools.cache
def alibi(num_heads):
  """-slope(head) * |distance|, slopes a geometric series from 2^(-8/num_heads). https://arxiv.org/abs/2108.12409

  If num_heads is not a power of two, as in their code: the series of the power below, then every other slope of the
  power above.
  """
  power = 2 ** int(math.log2(num_heads))

  def series(n):
    return [2.0 ** (-8.0 * (i + 1) / n) for i in range(n)]

  slopes = np.array((series(power) + series(2 * power)[::2])[:num_heads], np.float32)[None, :, None, None]

  def bias(query_positions, key_positions):
    """[batch or 1, queries, 1], [batch or 1, 1, keys] -> [batch or 1, heads, queries, keys]"""
    return -slopes * abs(query_positions - key_positions)[:, None].astype(jnp.float32)

  return bias
