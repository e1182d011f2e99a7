"""Attention in blocks of queries, one head at a time: logits stay in a CPU's cache, where `dense_attention` writes all
of them to memory. 1500 frames of a Whisper take a third of the time."""

import jax
import jax.numpy as jnp

from zoo.layers.sparse_attention import attention

FROM = 2**18  # Logits of a head: fewer fit into the cache as they are.
BLOCK = 256  # Queries, at most.


def blocked_attention(query, key, value, *, mask=None, bias=None, scale=None, on_logits=None, on_weights=None):
  """As `dense_attention`; calls that are small, masked, biased or watched go to `sparse_attention.attention`."""
  batch, queries, heads, head_dim = query.shape
  keys, kv_heads = key.shape[1:3]
  special = bias is not None or on_logits is not None or on_weights is not None
  if special or queries * keys < FROM or heads != kv_heads or mask is not None and mask.array() is not None:
    return attention(query, key, value, mask=mask, bias=bias, scale=scale, on_logits=on_logits, on_weights=on_weights)
  count = -(-queries // BLOCK)
  block = -(-queries // count)
  query = jnp.pad(
    query * (head_dim**-0.5 if scale is None else scale), ((0, 0), (0, count * block - queries), (0, 0), (0, 0))
  )
  query = query.reshape(batch, count, block, heads, head_dim).transpose(0, 3, 1, 2, 4)
  key, value = key.transpose(0, 2, 3, 1), value.transpose(0, 2, 1, 3)  # Contiguous for each head.

  def one_head(arrays):
    query, key, value = arrays

    def one_block(query):
      logits = jnp.matmul(query, key, preferred_element_type=jnp.float32)
      weights = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
      total = weights.sum(axis=-1, keepdims=True)
      return (weights.astype(value.dtype) @ value / total).astype(value.dtype)

    return jax.lax.map(one_block, query)

  by_head = lambda array: array.reshape(batch * heads, *array.shape[2:])
  y = jax.lax.map(one_head, (by_head(query), by_head(key), by_head(value)))
  return y.reshape(batch, heads, count * block, head_dim)[:, :, :queries].transpose(0, 2, 1, 3)
