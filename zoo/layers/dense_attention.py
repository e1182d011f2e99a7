"""Dense attention: the weights of all pairs of tokens at once."""

import jax
import jax.numpy as jnp


def dense_attention(query, key, value, *, mask=None, bias=None, scale=None, on_logits=None, on_weights=None):
  """softmax(scale * query @ key + bias) @ value, the softmax in float32.

  Source: https://arxiv.org/abs/1706.03762, section 3.2.1; with fewer kv_heads than heads, https://arxiv.org/abs/2305.13245.

  Args:
    query: [batch, queries, heads, head_dim]
    key, value: [batch, keys, kv_heads, head_dim]; heads / kv_heads adjacent query heads share one.
    mask: `masks.AttentionMask`, or None: nothing is masked. A query with no visible key gets the mean of all values.
    bias: broadcastable to [batch, heads, queries, keys], or None.
    scale: multiplies the logits; 1/sqrt(head_dim) if None.
    on_logits: function of the scaled logits [batch, heads, queries, keys] that returns their replacement.
    on_weights: the same for the weights, after the softmax.

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
  visible = None if mask is None else mask.array()
  if visible is not None:
    logits = jnp.where(visible, logits, jnp.finfo(jnp.float32).min)
  weights = jax.nn.softmax(logits)
  if on_weights is not None:
    weights = on_weights(weights)
  weights = weights.astype(value.dtype).reshape(batch, kv_heads, heads // kv_heads, queries, keys)
  # In the dot product's own output order: any other would make XLA on CPUs transpose all values.
  y = jnp.einsum("bngqk,bknd->bngqd", weights, value)
  return y.transpose(0, 3, 1, 2, 4).reshape(batch, queries, heads, head_dim)
