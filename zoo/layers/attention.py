"""Multi-head attention: projections and a cache around a pure kernel."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.layers import caches, initial
from zoo.layers.dense import DenseGeneral
from zoo.layers.masks import Visibility, bounds
from zoo.layers.parts import replaced
from zoo.layers.sequence import SequenceInfo, segments_of


def dense_attention(query, key, value, *, visibility=None, bias=None, scale=None, on_logits=None, on_weights=None):
  """softmax(scale * query @ key + bias) @ value, the softmax in float32.

  Source: https://arxiv.org/abs/1706.03762, section 3.2.1; with fewer kv_heads than heads, https://arxiv.org/abs/2305.13245.

  Args:
    query: [batch, queries, heads, head_dim]
    key, value: [batch, keys, kv_heads, head_dim]; heads / kv_heads neighbouring heads of the query share one.
    visibility: `masks.Visibility`, or None: all see all. A query that sees no key gets the mean of all values.
    bias: broadcastable to [batch, heads, queries, keys], or None.
    scale: multiplies the logits; 1/sqrt(head_dim) if None.
    on_logits: a function of the scaled logits [batch, heads, queries, keys] that returns what is used in their place.
    on_weights: likewise of the weights, after the softmax.

  Returns:
    [batch, queries, heads, head_dim]
  """
  batch, queries, heads, head_dim = query.shape
  keys, kv_heads = key.shape[1:3]
  grouped = query.reshape(batch, queries, kv_heads, heads // kv_heads, head_dim)
  logits = jnp.einsum("bqngd,bknd->bngqk", grouped, key, preferred_element_type=jnp.float32)
  logits = logits.reshape(batch, heads, queries, keys) * (head_dim**-0.5 if scale is None else scale)
  if on_logits is not None:
    logits = on_logits(logits)
  if bias is not None:
    logits += bias.astype(jnp.float32)
  seen = None if visibility is None else visibility.array()
  if seen is not None:
    logits = jnp.where(seen, logits, jnp.finfo(jnp.float32).min)
  weights = jax.nn.softmax(logits)
  if on_weights is not None:
    weights = on_weights(weights)
  weights = weights.astype(value.dtype).reshape(batch, kv_heads, heads // kv_heads, queries, keys)
  # In the order in which a product comes: to have it another way XLA on CPUs would turn all values around.
  y = jnp.einsum("bngqk,bknd->bngqd", weights, value)
  return y.transpose(0, 3, 1, 2, 4).reshape(batch, queries, heads, head_dim)


class Attention(nn.Module):
  """Projects to heads, attends, projects back: self-attention, or cross-attention when `context` is given.

  Args:
    num_heads, head_dim: heads of the query and their width.
    num_kv_heads: heads of key and value, a divisor of num_heads; num_heads if None.
    kernel: called as `dense_attention` is.
    mask: a rule of `zoo.layers.masks`, or None: all see all.
    rotary: turns query and key of self-attention by their positions, `positions.rotary(theta)`, or None.
    scale: multiplies the logits; 1/sqrt(head_dim) if None.
    qk_norm: norm of each head of query and key, copied to `query_norm` and `key_norm`; None: they have none.
    use_bias: whether the four projections have one.
    key_bias, out_bias: whether the key and the output have one; as use_bias says if None.
    dropout: chance to drop an attention weight.
    cache: of `zoo.layers.caches`, how keys and values are kept.
    dtype: what is computed in.
    kernel_init, out_init: initial values of query, key, value and of the output projection.
    query_init: initial values of the query, where they differ.
    dot_general: multiplies by kernels, as `jax.lax.dot_general` does; that if None.

  With the collection "cache" mutable in `apply`, self-attention with a mask appends keys and values to what it finds
  there and attends to all of it. The first such call makes a cache as long as its input; `zoo.generate` makes it
  longer. Cross-attention keeps the keys and values of its context at the first such call, and later calls look at
  those: the context that they are given is not projected again. Self-attention without a mask, where the past sees the
  future, keeps nothing.
  With "intermediates" mutable, the attention weights [batch, heads, queries, keys] are sown there as `weights`.
  """

  num_heads: int
  head_dim: int
  num_kv_heads: int | None = None
  kernel: Callable = dense_attention
  mask: Callable | None = None
  rotary: Callable | None = None
  scale: float | None = None
  qk_norm: nn.Module | None = None
  use_bias: bool = True
  key_bias: bool | None = None
  out_bias: bool | None = None
  dropout: float = 0.0
  cache: Any = caches.Whole()
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
      context: [batch, context length, context dim], or None: x itself.
      info, context_info: what is known about the tokens of x, of context.
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
    # A causal mask hides what follows in the row, whatever positions say: it goes by them only where they rise.
    in_order = not cached and context is None and (info.positions is None or info.segment_ids is not None)
    positions = self._positions(info, x.shape[1], cached)
    key_positions = positions if context is None else jnp.arange(key.shape[1], dtype=jnp.int32)[None]
    key_info = info if context is None else context_info
    valid = key_info.valid
    if self.rotary is not None and context is None:
      query, key = self.rotary(query, positions), self.rotary(key, positions)
    if cached:
      if info.segment_ids is not None:
        raise ValueError("Texts that share a row are not kept in a cache. Give each a row of its own, no segment_ids.")
      key, value, key_positions, valid = self._remember(key, value, positions, valid)
    if callable(bias):
      bias = bias(positions[:, :, None], key_positions[:, None, :])
    segments = info.segment_ids, key_info.segment_ids
    if in_order:
      positions = key_positions = jnp.arange(x.shape[1], dtype=jnp.int32)[None]
    elif context is None and not cached and bounds(self.mask) is not None and bounds(self.mask)[1] == 0:
      segments = (segments_of(positions, valid),) * 2
    visibility = Visibility(self.mask, positions, key_positions, valid, *segments, in_order)
    on_weights = self._on_weights(train)
    y = self.kernel(query, key, value, visibility=visibility, bias=bias, scale=self.scale, on_weights=on_weights)
    use_bias = self.use_bias if self.out_bias is None else self.out_bias
    dense = functools.partial(DenseGeneral, dtype=self.dtype, dot_general=self.dot_general)
    return dense(x.shape[-1], axis=(-2, -1), use_bias=use_bias, kernel_init=self.out_init, name="out")(y)

  def _positions(self, info, length, cached):
    """int32 [batch or 1, length], after what the cache holds where they are not given."""
    positions = info.token_positions(length)
    if info.positions is None and cached:
      if self.has_variable("cache", "ring_keys"):
        raise ValueError("Decoding with a ring needs positions: int32 [batch or 1, length], where the tokens stand.")
      if self.has_variable("cache", "index"):
        positions += self.get_variable("cache", "index")
    return positions

  def _project(self, name, heads, *, use_bias=None, init=None):
    use_bias = self.use_bias if use_bias is None else use_bias
    init = self.kernel_init if init is None else init
    dense = functools.partial(DenseGeneral, dtype=self.dtype, dot_general=self.dot_general)
    return dense((heads, self.head_dim), use_bias=use_bias, kernel_init=init, name=name)

  def _keys_and_values(self, source, heads, kept, dtype):
    """[batch, keys, dim] -> two of [batch, keys, heads, head_dim]; those of an earlier call where they are `kept`."""
    project = {"key": self._project("key", heads, use_bias=self.key_bias), "value": self._project("value", heads)}
    if not kept:
      return [dense(source) for dense in project.values()]
    # Not `keys` and `values`: what makes a cache longer leaves a context as long as it is.
    names = {f"context_{name}s": dense for name, dense in project.items()}
    held = dict(self.variables.get("cache", {}))
    if not held:
      arrays = {name: dense(source).swapaxes(1, 2) for name, dense in names.items()}
      for name, array in arrays.items():
        held |= caches.packed(name, array, self.cache.dtype)
      for name, array in held.items():
        self.put_variable("cache", name, array)
    for name in names:
      if held[name].shape[0:3:2] != source.shape[:2]:
        raise ValueError(
          f"The cache is of a context {list(held[name].shape[0:3:2])}, now it is {list(source.shape[:2])} "
          "[batch, length]. Start a new sequence with an empty cache."
        )
    return [caches.unpacked(name, held, dtype).swapaxes(1, 2) for name in names]

  def _on_weights(self, train):
    """None unless someone looks at the weights or drops some: kernels that never form them stay usable."""
    watched, drop = self.is_mutable_collection("intermediates"), train and self.dropout > 0
    if not watched and not drop:
      return None

    def on_weights(weights):
      if watched:
        self.sow("intermediates", "weights", weights)
      return nn.Dropout(self.dropout)(weights, deterministic=not train)

    return on_weights

  def _remember(self, key, value, positions, valid):
    """Adds to the cache -> what it shows: keys, values, positions [batch, kept] and which of them are real."""
    positions = jnp.broadcast_to(positions, key.shape[:2]).astype(jnp.int32)
    kept = dict(self.variables.get("cache", {}))
    kept, *seen = self.cache.add(kept or None, key, value, positions, valid)
    for name, array in kept.items():
      self.put_variable("cache", name, array)
    return seen


def with_attentions(module, change):
  """The same module with `change(attention, path)` in place of every Attention of it; see `zoo.layers.parts`."""
  return replaced(module, lambda part, path: change(part, path) if isinstance(part, Attention) else part)


def with_caches(module, choose):
  """The same module with the cache `choose(attention)` in every Attention of it."""
  return with_attentions(module, lambda attention, path: attention.clone(cache=choose(attention)))
