"""Sparse attention by a pattern, never length x length: memory and, for patterns like windows, time are linear."""

import jax

from zoo.layers.dense_attention import dense_attention
from zoo.layers.patterns import Pattern
from zoo.layers.plans import plan
from zoo.layers.sparse_steps import Steps

FROM = 1024  # Tokens: in shorter sequences all pairs are quicker.


def attention(query, key, value, *, mask=None, bias=None, scale=None, on_logits=None, on_weights=None):
  """As `dense_attention`; by the mask's pattern where that `pays`."""
  options = dict(mask=mask, scale=scale, on_logits=on_logits, on_weights=on_weights)
  if bias is not None or not pays(query, key, mask, on_weights):
    return dense_attention(query, key, value, bias=bias, **options)
  return sparse_attention(query, key, value, **options)


def pays(query, key, mask, on_weights=None):
  """Whether `sparse_attention` takes a call, and saves half of the pairs of FROM tokens or more."""
  length = query.shape[1]
  if length < FROM or not supports(query, key, mask, on_weights):
    return False
  return plan(mask.rule.at(length), length).pairs <= length**2 / 2


def supports(query, key, mask, on_weights=None):
  """Whether `sparse_attention` takes such a call: self-attention by a pattern over indices, its weights unwatched."""
  if mask is None or not isinstance(mask.rule, Pattern) or not mask.in_order or query.shape[1] != key.shape[1]:
    return False
  if on_weights is not None and (not hasattr(on_weights, "dropping") or on_weights.watched):
    return False
  # Heads that differ share no keys, and differ by whole tiles.
  of_heads = mask.rule.heads is None
  return of_heads or (query.shape[2] == key.shape[2] and plan(mask.rule.at(query.shape[1]), query.shape[1]).whole)


def sparse_attention(query, key, value, *, mask, scale=None, on_logits=None, on_weights=None, tile=None):
  """`dense_attention` under a mask whose rule is a pattern, without the pairs that it hides: equal up to rounding.

  Args:
    query: [batch, length, heads, head_dim]
    key, value: [batch, length, kv_heads, head_dim]
    mask: `masks.AttentionMask` in order, with a `patterns.Pattern` as its rule; padding, segments and global keys too.
    scale: multiplies the logits; 1/sqrt(head_dim) if None.
    on_logits: elementwise function of the scaled logits.
    on_weights: None, or a hook of `zoo.layers.attention` that drops weights.
    tile: queries of a chunk; None: chosen by the pattern.

  Returns:
    [batch, length, heads, head_dim]
  """
  length = query.shape[1]
  pattern = mask.rule.at(length)
  steps = Steps(
    plan(pattern, length, tile),
    pattern,
    length,
    query.shape[-1] ** -0.5 if scale is None else scale,
    on_logits,
    0.0 if on_weights is None else on_weights.rate,
  )
  facts = steps.facts(mask) | ({} if on_weights is None else {"rng": on_weights.dropping()})

  @jax.custom_vjp
  def run(arrays, facts):
    return steps.forward(arrays, facts)[0]

  def forward(arrays, facts):
    y, log_sum = steps.forward(arrays, facts)
    return y, (arrays, facts, y, log_sum)

  run.defvjp(forward, lambda saved, cotangent: (steps.backward(*saved, cotangent), None))
  return run((query, key, value), facts)
