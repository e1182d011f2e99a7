"""Relative attention of two streams, as in XLNet. https://arxiv.org/abs/1906.08237, sections 2.3 to 2.5

The content stream reads tokens. The query stream knows where a token stands and not which it is, and reads only those
that come before it in an order of its own; so it can predict it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.layers import initial
from zoo.layers.attention import on_weights_of
from zoo.layers.dense import DenseGeneral
from zoo.layers.dense_attention import dense_attention
from zoo.layers.mixed_precision import add, broadcast
from zoo.layers.positions import Sinusoidal
from zoo.layers.relative import remembered
from zoo.layers.sequence import SequenceInfo

HIDDEN = -1e30  # Added to the logit of a key that is not seen; a query that sees none gets the mean of all values.


class Streams(NamedTuple):
  """The two streams of hidden states that pass through the layers.

  content: [batch, length, dim]
  queries: [batch, k, dim] of the tokens to predict, or None: none is.
  """

  content: jax.Array
  queries: jax.Array | None = None


class Reading(NamedTuple):
  """The tokens to read and to predict.

  info: `SequenceInfo` of the tokens.
  sees: bool [batch, length, length], whether a token, second axis, reads another, third axis; the content stream reads
    each token itself in any case. None: all read all.
  predict: int32 [batch, k], the tokens of the query stream, or None.
  segments: int32 [batch, length], of which part a token is, or None: all are of one.
  """

  info: SequenceInfo = SequenceInfo()
  sees: jax.Array | None = None
  predict: jax.Array | None = None
  segments: jax.Array | None = None


class TwoStreamAttention(nn.Module):
  """Attention by content, by signed distance, and by whether two tokens are of one segment.

  Args:
    num_heads, head_dim: of query, key and value.
    kernel: called as `dense_attention` is.
    memory_length: tokens of the collection "memory", see `zoo.layers.relative.remembered`; 0: there is none.
    clamp: larger distances, either way, count as it; None: none is too large.
    dropout: rate at which attention weights and entries of the sinusoids are dropped.
    dtype: computation dtype.
    kernel_init: of all parameters.
  """

  num_heads: int
  head_dim: int
  kernel: Callable = dense_attention
  memory_length: int = 0
  clamp: int | None = None
  dropout: float = 0.0
  dtype: Any = None
  kernel_init: Callable = initial.normal(0.02)

  @nn.compact
  def __call__(self, streams, reading, *, train=False):
    """`Streams`, `Reading` -> `Streams` of the same shapes"""
    x = streams.content
    memory = remembered(self, self.memory_length, x, reading.info)
    source = x if memory is None else jnp.concatenate([memory[0].astype(x.dtype), x], axis=1)
    keys, length = source.shape[1], x.shape[1]
    heads = lambda name: DenseGeneral(
      (self.num_heads, self.head_dim), use_bias=False, dtype=self.dtype, kernel_init=self.kernel_init, name=name
    )
    query, key, value = heads("query"), heads("key")(source), heads("value")(source)
    distances = keys - jnp.arange(keys + length)  # From each key of the last query to the first query's last key.
    waves = Sinusoidal(x.shape[2], interleaved=False)
    clamped = distances if self.clamp is None else jnp.clip(distances, -self.clamp, self.clamp)
    waves = nn.Dropout(self.dropout)(waves(keys + length, clamped[None])[0], deterministic=not train)
    by_distance = heads("distance")(waves.astype(x.dtype))
    shape = (self.num_heads, self.head_dim)
    biases = [self.param(f"{name}_bias", self.kernel_init, shape) for name in ("content", "position", "segment")]
    of_segments = self.param("segments", self.kernel_init, (2, *shape))
    hidden = self._hidden(reading, keys - length, length, None if memory is None else memory[1])
    out = DenseGeneral(
      x.shape[2], axis=(-2, -1), use_bias=False, dtype=self.dtype, kernel_init=self.kernel_init, name="out"
    )

    def attend(query, index, hidden):
      """Of queries [batch, q, heads, head_dim] that stand at `index`, int32 [batch or 1, q]."""
      products = jnp.einsum("bqnd,knd->bnqk", add(query, biases[1]), by_distance)
      bias = aligned(products, keys) if index is everywhere else picked(products, length - index, keys)
      if reading.segments is not None:
        other = self._other_segment(reading.segments, index, keys - length)
        chosen = jnp.einsum("bqnd,snd->bnqs", add(query, biases[2]), of_segments.astype(query.dtype))
        bias += jnp.where(other[:, None], chosen[..., 1:], chosen[..., :1])
      scale = self.head_dim**-0.5
      bias = bias.astype(jnp.float32) * scale
      bias = bias if hidden is None else bias + jnp.where(hidden[:, None], HIDDEN, 0.0)
      return out(
        self.kernel(add(query, biases[0]), key, value, bias=bias, scale=scale, on_weights=on_weights_of(self, train))
      )

    everywhere = jnp.arange(length, dtype=jnp.int32)[None]
    itself = jnp.pad(jnp.eye(length, dtype=bool), ((0, 0), (keys - length, 0)))[None]
    content = attend(query(x), everywhere, None if hidden is None else hidden & ~itself)
    if streams.queries is None:
      return Streams(content)
    predicted = None if hidden is None else jnp.take_along_axis(
      jnp.broadcast_to(hidden, (x.shape[0], length, keys)), reading.predict[:, :, None], axis=1
    )  # fmt: skip
    return Streams(content, attend(query(streams.queries), reading.predict, predicted))

  def _hidden(self, reading, kept, length, remembered_valid):
    """bool [batch or 1, length, keys], the keys that a token does not read; None: it reads all."""
    hidden = []
    if reading.info.valid is not None or remembered_valid is not None:
      valid = reading.info.valid
      batch = len(remembered_valid if valid is None else valid)
      valid = jnp.ones((batch, length), bool) if valid is None else valid.astype(bool)
      valid = valid if remembered_valid is None else jnp.concatenate([remembered_valid, valid], axis=1)
      hidden.append(~valid[:, None])
    if reading.sees is not None:
      hidden.append(jnp.pad(~reading.sees.astype(bool), ((0, 0), (0, 0), (kept, 0))))
    if not hidden:
      return None
    both = hidden[0] if len(hidden) == 1 else hidden[0] | hidden[1]
    return jnp.broadcast_to(both, (both.shape[0], length, both.shape[2]))

  def _other_segment(self, segments, index, kept):
    """bool [batch, q, keys], whether a key is of another segment than the query; a memory is of segment 0."""
    of_keys = jnp.pad(segments, ((0, 0), (kept, 0)))
    of_queries = jnp.take_along_axis(segments, jnp.broadcast_to(index, (len(segments), index.shape[1])), axis=1)
    return of_queries[:, :, None] != of_keys[:, None]


class TwoStreamBlock(nn.Module):
  """norm(x + sublayer(x)) for both streams, with the same parameters.

  Args:
    attention: a `TwoStreamAttention`, copied to `self_attention`.
    mlp, norm: copied to `feed_forward`, and to `attention_norm` and `mlp_norm`.
    dropout: rate of what a sublayer adds.
  """

  attention: nn.Module
  mlp: nn.Module
  norm: nn.Module
  dropout: float = 0.0

  @nn.compact
  def __call__(self, streams, *, reading, train=False):
    """`Streams`, `Reading` -> `Streams`"""
    drop = nn.Dropout(self.dropout, deterministic=not train)
    norm, mlp_norm = self.norm.copy(name="attention_norm"), self.norm.copy(name="mlp_norm")
    feed = self.mlp.copy(name="feed_forward")
    read = self.attention.copy(name="self_attention")(streams, reading, train=train)

    def after(x, y):
      x = norm(x + drop(y))
      return mlp_norm(x + drop(feed(x, train=train)))

    content = after(streams.content, read.content)
    return Streams(content, None if streams.queries is None else after(streams.queries, read.queries))


def aligned(products, keys):
  """Products by distance as products by key, for queries that stand at 0, 1, 2, ... behind what is remembered.

  Args:
    products: [..., queries, keys + queries]; column c is of distance keys - c.
    keys: how many.

  Returns:
    [..., queries, keys]

  >>> aligned(jnp.arange(5)[None] + jnp.array([[0], [10]]), 3)  # Distances 3 to -1, of one token before.
  Array([[ 2,  3,  4],
         [11, 12, 13]], dtype=int32)
  """
  *rows, queries, columns = products.shape
  turned = products.reshape(*rows, columns, queries)[..., 1:, :].reshape(*rows, queries, columns - 1)
  return turned[..., :keys]


def picked(products, first, keys):
  """`aligned` for queries at any position: `first`, int32 [batch or 1, queries], is the column of the first key."""
  columns = first[:, :, None] + jnp.arange(keys)[None, None]
  return jnp.take_along_axis(products, jnp.broadcast_to(columns[:, None], (*products.shape[:3], keys)), axis=-1)


def queries(vector, predict, dtype):
  """The query stream at first: one vector for all, [dim], int32 [batch, k] -> [batch, k, dim]"""
  return broadcast(vector, (*predict.shape, *vector.shape), dtype)
