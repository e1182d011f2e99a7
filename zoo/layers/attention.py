"""Multi-head attention: projections and a cache around a pure kernel."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import caches, initial
from zoo.layers.dense import DenseGeneral
from zoo.layers.dense_attention import dense_attention as dense_attention
from zoo.layers.masks import AttentionMask, band, lookback
from zoo.layers.parts import replace_modules
from zoo.layers.sequence import SequenceInfo, segments_of
from zoo.layers.sparse_attention import attention as by_pattern


class Attention(nn.Module):
  """Projects to heads, attends, projects back: self-attention, or cross-attention when `context` is given.

  Args:
    num_heads, head_dim: heads of the query and their width.
    num_kv_heads: heads of key and value, a divisor of num_heads; num_heads if None.
    kernel: called as `dense_attention` is; by default its equal, which skips what a pattern hides in long sequences.
    mask: a rule of `zoo.layers.masks` or a pattern of `zoo.layers.patterns`, or None: nothing is masked.
    rotary: rotary position embedding of query and key in self-attention, `positions.rotary(theta)`, or None.
    scale: multiplies the logits; 1/sqrt(head_dim) if None.
    qk_norm: norm of each head of query and key, copied to `query_norm` and `key_norm`, or None.
    use_bias: whether the four projections have a bias.
    key_bias, out_bias: the same for key and output alone; use_bias if None.
    dropout: rate at which attention weights are dropped.
    cache: key-value cache, a value of `zoo.layers.caches`.
    dtype: computation dtype.
    kernel_init, out_init: initializers of the query, key and value kernels, and of the output kernel.
    query_init: initializer of the query kernel; kernel_init if None.
    dot_general: replacement of `jax.lax.dot_general` for products with kernels, or None.

  With the collection "cache" mutable in `apply`, self-attention with a mask appends its keys and values to the cache
  and attends to all of it. The first such call creates a cache as long as its input; `zoo.generate.grow` lengthens it.
  Cross-attention caches the keys and values of its context at the first such call; later calls use those and ignore
  their context. Self-attention without a mask, which is bidirectional, caches nothing.
  With "intermediates" mutable, the attention weights [batch, heads, queries, keys] are sown there as `weights`.
  """

  num_heads: int
  head_dim: int
  num_kv_heads: int | None = None
  kernel: Callable = by_pattern
  mask: Callable | None = None
  rotary: Callable | None = None
  scale: float | None = None
  qk_norm: nn.Module | None = None
  use_bias: bool = True
  key_bias: bool | None = None
  out_bias: bool | None = None
  dropout: float = 0.0
  cache: Any = caches.FullCache()
  dtype: Any = None
  kernel_init: Callable = initial.lecun_normal()
  out_init: Callable = initial.lecun_normal()
  query_init: Callable | None = None
  dot_general: Callable | None = None

  @nn.compact
  def __call__(self, x, context=None, *, info=SequenceInfo(), context_info=SequenceInfo(), bias=None, train=False):
    """[batch, length, dim] -> [batch, length, dim]

    Args:
      x: [batch, length, dim]
      context: [batch, context length, context dim], or None: x itself. Once it is cached,
        adjacent rows of x may share one: [batch / rows that share, context length, context dim].
      info, context_info: `SequenceInfo` of x, of context.
      bias: broadcastable to [batch, heads, length, keys], or a function of (query_positions [batch or 1, length, 1],
        key_positions [batch or 1, 1, keys]) that returns it.
    """
    kv_heads = self.num_heads if self.num_kv_heads is None else self.num_kv_heads
    if self.num_heads % kv_heads:
      raise ValueError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {kv_heads}. Change one of them.")
    query = self._project("query", self.num_heads, init=self.query_init)(x)
    caching = self.is_mutable_collection("cache") and not self.is_initializing()
    key, value = self._keys_and_values(
      x if context is None else context, kv_heads, context is not None and caching, query.dtype
    )
    if self.qk_norm is not None:
      query, key = self.qk_norm.copy(name="query_norm")(query), self.qk_norm.copy(name="key_norm")(key)
    cached = context is None and self.mask is not None and caching
    # A causal mask hides later tokens even if positions repeat: they are compared only where they increase.
    in_order = not cached and context is None and (info.positions is None or info.segment_ids is not None)
    positions = self._positions(info, x.shape[1], cached)
    key_positions = positions if context is None else jnp.arange(key.shape[1], dtype=jnp.int32)[None]
    key_info = info if context is None else context_info
    valid = key_info.valid
    if self.rotary is not None and context is None:
      query, key = self.rotary(query, positions), self.rotary(key, positions)
    if cached:
      if info.segment_ids is not None:
        raise ValueError("Packed sequences cannot be cached. Give each segment its own row, no segment_ids.")
      key, value, key_positions, valid = self._append_to_cache(key, value, positions, valid)
    if callable(bias):
      bias = bias(positions[:, :, None], key_positions[:, None, :])
    segments = info.segment_ids, key_info.segment_ids
    if in_order:
      positions = key_positions = jnp.arange(x.shape[1], dtype=jnp.int32)[None]
    elif context is None and not cached and band(self.mask) is not None and band(self.mask)[1] == 0:
      segments = (segments_of(positions, valid),) * 2
    mask = AttentionMask(self.mask, positions, key_positions, valid, *segments, in_order=in_order)
    on_weights = self._on_weights(train)
    shares = key.shape[0] != x.shape[0]  # Beams and their source: their queries are attended to as those of one row.
    query = query.reshape(key.shape[0], -1, *query.shape[2:]) if shares else query
    y = self.kernel(query, key, value, mask=mask, bias=bias, scale=self.scale, on_weights=on_weights)
    y = y.reshape(*x.shape[:2], *y.shape[2:]) if shares else y
    return self._output(x.shape[-1])(y)

  @property
  def lookback(self):
    """Number of previous tokens that a token attends to; None: all."""
    return lookback(self.mask)

  def _output(self, dim):
    use_bias = self.use_bias if self.out_bias is None else self.out_bias
    dense = functools.partial(DenseGeneral, dtype=self.dtype, dot_general=self.dot_general)
    return dense(dim, axis=(-2, -1), use_bias=use_bias, kernel_init=self.out_init, name="out")

  def _positions(self, info, length, cached):
    """int32 [batch or 1, length]; by default they continue after the cached tokens."""
    positions = info.token_positions(length)
    if info.positions is None and cached:
      if self.has_variable("cache", "ring_keys"):
        raise ValueError(
          "Decoding with a RingCache needs positions: int32 [batch or 1, length] of the tokens. Pass positions."
        )
      if self.has_variable("cache", "index"):
        positions += self.get_variable("cache", "index")
    return positions

  def _project(self, name, heads, *, use_bias=None, init=None):
    use_bias = self.use_bias if use_bias is None else use_bias
    init = self.kernel_init if init is None else init
    dense = functools.partial(DenseGeneral, dtype=self.dtype, dot_general=self.dot_general)
    return dense((heads, self.head_dim), use_bias=use_bias, kernel_init=init, name=name)

  def _keys_and_values(self, source, heads, from_cache, dtype):
    """[batch, keys, dim] -> keys, values [batch, keys, heads, head_dim]; cached if `from_cache`."""
    project = {"key": self._project("key", heads, use_bias=self.key_bias), "value": self._project("value", heads)}
    if not from_cache:
      return [dense(source) for dense in project.values()]
    # Not `keys` and `values`: `zoo.generate.grow` lengthens those, and a context keeps its length.
    names = {f"context_{name}s": dense for name, dense in project.items()}
    cache = dict(self.variables.get("cache", {}))
    if not cache:
      arrays = {name: dense(source).swapaxes(1, 2) for name, dense in names.items()}
      for name, array in arrays.items():
        cache |= caches.packed(name, array, self.cache.dtype)
      for name, array in cache.items():
        self.put_variable("cache", name, array)
    for name in names:
      if cache[name].shape[0:3:2] != source.shape[:2]:
        raise ValueError(
          f"The cache holds a context of {list(cache[name].shape[0:3:2])}, the call one of {list(source.shape[:2])} "
          "[batch, length]. Start a new sequence with an empty cache."
        )
    return [caches.unpacked(name, cache, dtype).swapaxes(1, 2) for name in names]

  def _on_weights(self, train):
    return on_weights_of(self, train)

  def _append_to_cache(self, key, value, positions, valid):
    """Updates the cache -> keys, values, positions [batch, cached] and valid [batch, cached] to attend to."""
    positions = jnp.broadcast_to(positions, key.shape[:2]).astype(jnp.int32)
    cache = dict(self.variables.get("cache", {}))
    cache, *visible = self.cache.add(cache or None, key, value, positions, valid)
    for name, array in cache.items():
      self.put_variable("cache", name, array)
    return visible


@dataclasses.dataclass(frozen=True, eq=False)
class WeightHook:
  """What an attention does with its weights: called with them, it sows those that are watched and drops some.

  Args:
    attention: the module, while it is applied.
    watched: whether weights are sown.
    rate: at which they are dropped.
  """

  attention: nn.Module
  watched: bool
  rate: float

  def __call__(self, weights):
    if self.watched:
      self.attention.sow("intermediates", "weights", weights)
    return nn.Dropout(self.rate)(weights, deterministic=not self.rate)

  def dropping(self):
    """A key for a kernel that drops weights itself, at `rate`; None if none are dropped."""
    return self.attention.make_rng("dropout") if self.rate else None


def on_weights_of(attention, train):
  """The `WeightHook` of an attention; None where it has nothing to do, so that flash kernels stay usable.

  Those never form weights.
  """
  watched, rate = attention.is_mutable_collection("intermediates"), attention.dropout if train else 0.0
  return WeightHook(attention, watched, rate) if watched or rate else None


def with_attentions(module, change):
  """A copy of the module with every Attention replaced by `change(attention, path)`; see `zoo.layers.parts`."""
  return replace_modules(module, lambda part, path: change(part, path) if isinstance(part, Attention) else part)


def with_caches(module, choose):
  """A copy of the module with the cache `choose(attention)` in every Attention."""
  return with_attentions(module, lambda attention, path: attention.clone(cache=choose(attention)))
