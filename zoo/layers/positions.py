"""Where a token stands. Three doors: added to the embedding, turned into query and key, or added to the logits."""

import functools
import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from zoo.layers import initial


class Learned(nn.Module):
  """A trained vector per position."""

  max_length: int
  dim: int
  dtype: str | None = None
  embedding_init: nn.initializers.Initializer = initial.normal(0.02)

  @nn.compact
  def __call__(self, length, positions=None):
    """length, or positions int32 [batch or 1, length] -> [batch or 1, length, dim]"""
    if length > self.max_length:
      raise ValueError(
        f"Learned positions: length {length} exceeds max_length {self.max_length}. Raise max_length or crop the input."
      )
    table = self.param("embedding", self.embedding_init, (self.max_length, self.dim))
    table = table if self.dtype is None else table.astype(self.dtype)
    return table[None, :length] if positions is None else table[positions]


class Sinusoidal(nn.Module):
  """sin(p / wavelength^(2i/dim)) at 2i and cos of the same at 2i + 1. https://arxiv.org/abs/1706.03762, section 3.5."""

  dim: int
  wavelength: float = 10_000.0
  interleaved: bool = True  # False: all sines, then all cosines, as Marian and tensor2tensor lay them out

  def __call__(self, length, positions=None):
    """length, or positions int32 [batch or 1, length] -> [batch or 1, length, dim]"""
    if self.dim % 2:
      raise ValueError(
        f"Sinusoidal positions: dim {self.dim} is odd. They come in pairs of sine and cosine: make it even."
      )
    positions = jnp.arange(length)[None] if positions is None else positions
    angle = (
      positions[:, :, None] * self.wavelength ** (-np.arange(0, self.dim, 2, dtype=np.float32) / self.dim)[None, None]
    )
    pair = [jnp.sin(angle), jnp.cos(angle)]
    return jnp.stack(pair, -1).reshape(*angle.shape[:2], self.dim) if self.interleaved else jnp.concatenate(pair, -1)


@functools.cache
def rotary(theta=10_000.0):
  """Turns each pair (x[i], x[i + head_dim/2]) by position * theta^(-2i/head_dim). https://arxiv.org/abs/2104.09864

  The halves are paired, as GPT-NeoX and Llama do. Section 3.4.2 pairs neighbours: other columns, the same model.
  """

  def turn(x, positions):
    """[batch, length, heads, head_dim], int32 [batch or 1, length] -> [batch, length, heads, head_dim]"""
    half = x.shape[-1] // 2
    if x.shape[-1] % 2:
      raise ValueError(f"Rotary positions: head_dim {x.shape[-1]} is odd. They turn pairs: make it even.")
    frequency = theta ** (-np.arange(half, dtype=np.float32) / half)
    angle = positions[:, :, None, None] * frequency[None, None, None]
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    first, second = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1).astype(x.dtype)

  return turn


class RelativeBias(nn.Module):
  """T5's trained bias per head and bucket of distances. https://arxiv.org/abs/1910.10683, section 2.1.

  Half of the buckets hold one distance each, the others grow in logarithmic steps up to max_distance.
  """

  num_heads: int
  num_buckets: int = 32
  max_distance: int = 128
  bidirectional: bool = True
  embedding_init: nn.initializers.Initializer = initial.normal(0.02)

  @nn.compact
  def __call__(self):
    """-> a function of positions: the `bias` of an attention. Call it yourself to share one array between layers."""
    table = self.param("embedding", self.embedding_init, (self.num_buckets, self.num_heads))

    def bias(query_positions, key_positions):
      """[batch or 1, queries, 1], [batch or 1, 1, keys] -> [batch or 1, heads, queries, keys]"""
      bucket = relative_bucket(
        key_positions - query_positions, self.num_buckets, self.max_distance, bidirectional=self.bidirectional
      )
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
  exact = num_buckets // 2
  steps = jnp.log(jnp.maximum(distance, 1) / exact) / math.log(max_distance / exact) * (num_buckets - exact)
  far = jnp.minimum(exact + steps.astype(jnp.int32), num_buckets - 1)
  return bucket + jnp.where(distance < exact, distance, far)


@functools.cache
def alibi(num_heads):
  """-slope(head) * |distance|, slopes a geometric series from 2^(-8/num_heads). https://arxiv.org/abs/2108.12409

  Where num_heads is no power of two, as their code has it: the series of the power below, then every other slope of the
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
