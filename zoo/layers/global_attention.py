"""Attention in a window, with global tokens: Longformer's, https://arxiv.org/abs/2004.05150, section 3.1.

Global tokens see all tokens, by projections of their own, and all tokens see them beside their window.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zoo.layers.attention import Attention
from zoo.layers.kernel_products import dot
from zoo.layers.masks import AttentionMask
from zoo.layers.mixed_precision import add, pick
from zoo.layers.sequence import SequenceInfo

ROWS = 8  # Global queries that are computed at a time.
NAMES = ("global_query", "global_key", "global_value")


class GlobalAttention(Attention):
  """Self-attention by the pattern `mask`, with the global tokens of `SequenceInfo.is_global`.

  Arguments as of `Attention`, without a cache, rotary positions, norms and grouped heads.
  """

  @nn.compact
  def __call__(self, x, context=None, *, info=SequenceInfo(), context_info=SequenceInfo(), bias=None, train=False):
    """[batch, length, dim] -> [batch, length, dim]; arguments as of `Attention`, but for `context` and `bias`: None."""
    assert context is None and bias is None, "GlobalAttention reads itself alone, and has no bias."
    query, key, value = (self._project(name, self.num_heads)(x) for name in ("query", "key", "value"))
    projections = [self._parameters(name, x) for name in NAMES]
    scale = self.head_dim**-0.5 if self.scale is None else self.scale
    positions = jnp.arange(x.shape[1], dtype=jnp.int32)[None]
    is_global = None if info.is_global is None else info.is_global.astype(bool)
    if is_global is not None and info.valid is not None:
      is_global &= info.valid.astype(bool)
    segments = info.segment_ids
    mask = AttentionMask(self.mask, positions, positions, info.valid, segments, segments, True, is_global)
    hook, local_weights = self._on_weights(train), []

    def watch(weights):
      local_weights.append(weights)
      return nn.Dropout(self.dropout)(weights, deterministic=not train)

    watched = hook is not None and hook.watched
    y = self.kernel(query, key, value, mask=mask, scale=scale, on_weights=watch if watched else hook)
    if is_global is not None:
      of_all = GlobalRows(scale, self.dropout if train else 0.0)
      keys = {"valid": info.valid, "segments": segments}
      if of_all.rate:
        keys["rng"] = self.make_rng("dropout")
      x = x.astype(query.dtype)
      y = jnp.where(is_global[:, :, None, None], of_all(x, projections, is_global, keys), y)
      if watched:
        every = jnp.broadcast_to(positions, x.shape[:2])
        weights = dataclasses.replace(of_all, rate=0.0).weights(x, projections, every, keys, 0)
        local_weights = [jnp.where(is_global[:, None, :, None], weights, local_weights[0])]
    if watched:
      self.sow("intermediates", "weights", local_weights[0])
    return self._output(x.shape[2])(y)

  def _parameters(self, name, x):
    """(kernel [dim, heads, head_dim], bias [heads, head_dim]) of a projection, in their own dtype."""
    layer = self._project(name, self.num_heads)
    layer(x[:, :0])  # Of no token: parameters are made, and nothing is computed.
    params = layer.variables["params"]
    return params["kernel"], params["bias"]


@dataclasses.dataclass(frozen=True)
class GlobalRows:
  """Attention of the global tokens to all tokens, a few of them at a time: however many there are, memory is linear.

  The projections of keys and values are moved to the queries' side, q (x W) = (q W) x: for a few queries that costs
  less than projecting all tokens.

  Args:
    scale: multiplies the logits. rate: at which weights are dropped.
  """

  scale: float
  rate: float

  def __call__(self, x, projections, is_global, keys):
    """[batch, length, dim] -> [batch, length, heads, head_dim], zeros at other tokens."""
    length = x.shape[1]
    order = jnp.argsort(~is_global, axis=1, stable=True).astype(jnp.int32)
    order = jnp.pad(order, ((0, 0), (0, -length % ROWS)))
    # Arguments, not closed over: the backward pass may be traced elsewhere, in a scan over layers for example.
    facts = {"keys": keys, "order": order, "used": is_global.sum(1, dtype=jnp.int32)}
    rows = np.arange(len(x))[:, None]

    def places(facts, j):
      """int32 [batch, ROWS], the tokens of a block; `length` where there are no more."""
      slots = j * ROWS + jnp.arange(ROWS, dtype=jnp.int32)[None]
      tokens = jax.lax.dynamic_slice_in_dim(facts["order"], j * ROWS, ROWS, 1)
      return jnp.where(slots < facts["used"][:, None], tokens, length)

    def blocks(facts, body, start):
      return jax.lax.fori_loop(0, -(-facts["used"].max() // ROWS), body, start)

    @jax.custom_vjp
    def run(arrays, facts):
      x, projections = arrays

      def block(j, y):
        found = self._block(x, projections, places(facts, j), facts["keys"], j)
        return y.at[rows, places(facts, j)].set(found, mode="drop")

      return blocks(facts, block, jnp.zeros((*x.shape[:2], *projections[2][0].shape[1:]), x.dtype))

    def backward(saved, d_y):
      arrays, facts = saved

      def block(j, sums):
        at = places(facts, j)
        _, pull = jax.vjp(lambda arrays: self._block(*arrays, at, facts["keys"], j), arrays)
        (found,) = pull(d_y.at[rows, at].get(mode="fill", fill_value=0))
        return jax.tree.map(lambda total, more: total + more.astype(total.dtype), sums, found)

      sums = blocks(facts, block, jax.tree.map(lambda x: jnp.zeros(x.shape), arrays))
      return jax.tree.map(lambda total, x: total.astype(x.dtype), sums, arrays), None

    run.defvjp(lambda arrays, facts: (run(arrays, facts), (arrays, facts)), backward)
    return run((x, projections), facts)

  def weights(self, x, projections, places, keys, j):
    """float32 [batch, heads, rows, length], of the tokens at `places` [batch, rows] for all."""
    (to_query, query_bias), (to_key, key_bias), _ = projections
    picked = pick(x, jnp.minimum(places, x.shape[1] - 1))
    query = add(dot(picked, to_query), query_bias) * self.scale
    over = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    logits = over("brhx,bkx->bhrk", _by_head("brhd,xhd->brhx", query, to_key), x)
    logits += (query.astype(key_bias.dtype) * key_bias[None, None]).sum(-1).swapaxes(1, 2)[..., None]
    least = jnp.finfo(jnp.float32).min
    if keys["valid"] is not None:
      logits = jnp.where(keys["valid"].astype(bool)[:, None, None], logits, least)
    if keys["segments"] is not None:
      of_rows = jnp.take_along_axis(keys["segments"], jnp.minimum(places, x.shape[1] - 1), axis=1)
      logits = jnp.where((of_rows[:, :, None] == keys["segments"][:, None])[:, None], logits, least)
    weights = jax.nn.softmax(logits)
    if self.rate:
      kept = jax.random.bernoulli(jax.random.fold_in(keys["rng"], j), 1 - self.rate, weights.shape)
      weights = jnp.where(kept, weights / (1 - self.rate), 0)
    return weights

  def _block(self, x, projections, places, keys, j):
    weights = self.weights(x, projections, places, keys, j)
    to_value, value_bias = projections[2]
    mean = jnp.einsum("bhrk,bkx->brhx", weights.astype(x.dtype), x)
    shares = weights.sum(-1).swapaxes(1, 2)[..., None]
    y = _by_head("brhx,xhd->brhd", mean, to_value)
    return y + (shares * value_bias[None, None]).astype(y.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _by_head(product, x, kernel):
  """einsum of x and a kernel [dim, heads, head_dim] in x's dtype; the kernel's gradient is computed in its own."""
  return jnp.einsum(product, x, kernel.astype(x.dtype))


@_by_head.defjvp
def _by_head_jvp(product, primals, tangents):
  (x, kernel), (dx, d_kernel) = primals, tangents
  dy = jnp.einsum(product, x.astype(kernel.dtype), d_kernel).astype(x.dtype)
  return _by_head(product, x, kernel), jnp.einsum(product, dx, kernel.astype(x.dtype)) + dy
