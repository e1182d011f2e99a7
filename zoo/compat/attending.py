"""Adapts attention of the zoo's models to the old behaviour: masks, head masks, and cross-attention."""

import functools

import jax.numpy as jnp

from zoo.errors import UserError
from zoo.layers.attention import with_attentions
from zoo.layers.parts import replace_modules
from zoo.layers.stack import Stack
from zoo.models.cross_decoders import without_cross_attention


def seen_in_order(model, start):
  """A copy of the model whose causal masks depend on the order in a row instead of positions.

  In the zoo positions determine the causal mask too. In old models, as in torch, they only feed the embedding: those
  that restart at 0 do not hide earlier tokens, nor reveal later ones.

  start: int32, number of cached tokens before these; None: there is no cache.
  """

  def in_order(attention, path):
    if attention.mask is None:
      return attention
    return attention.clone(kernel=functools.partial(_by_index, attention.kernel, start))

  return with_attentions(model, in_order)


def reading(model, inputs):
  """The model with its cross-attention, if the call has a context."""
  if "context" not in inputs:
    return model
  lonely = without_cross_attention(model)
  if inputs["context"] is not None and lonely is model:
    raise UserError(
      "encoder_hidden_states are passed, but config.add_cross_attention is not True. Set it, or leave them out."
    )
  return lonely if inputs["context"] is None else model


def with_heads(model, mask):
  """A copy of the model whose attention weights are multiplied by a head mask: float [layers, heads], or None."""

  def change(part, path):
    if not isinstance(part, Stack):
      return part
    if mask.shape[0] != part.depth:
      raise UserError(f"head_mask is {list(mask.shape)}, the model has {part.depth} layers. Give it [layers, heads].")
    kinds = part.block if isinstance(part.block, tuple) else (part.block,)
    layers = (with_attentions(kinds[i % len(kinds)], functools.partial(_masking, mask[i])) for i in range(part.depth))
    return part.clone(block=tuple(layers))

  return model if mask is None else replace_modules(model, change)


def _masking(mask, attention, path):
  if mask.shape != (attention.num_heads,):
    raise UserError(
      f"head_mask is [.., {mask.size}], a layer has {attention.num_heads} heads. Give it [layers, heads]."
    )
  return attention.clone(kernel=functools.partial(_by_heads, attention.kernel, mask[None, :, None, None]))


def _by_heads(kernel, head_mask, query, key, value, *, on_weights=None, **options):
  def masked(weights):
    return weights * head_mask if on_weights is None else on_weights(weights * head_mask)

  return kernel(query, key, value, on_weights=masked, **options)


def _by_index(kernel, start, query, key, value, *, mask, **options):
  queries, keys = (jnp.arange(x.shape[1], dtype=jnp.int32)[None] for x in (query, key))
  queries = queries if start is None else queries + start
  places = {"query_positions": queries, "key_positions": keys, "in_order": start is None}
  mask = mask._replace(**places, query_segments=None, key_segments=None)
  return kernel(query, key, value, mask=mask, **options)
