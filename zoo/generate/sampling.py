"""Sampling from logits: temperature, top-k, top-p, min-p."""

import jax
import jax.numpy as jnp


def sample(rng, logits, temperature, top_k=None, top_p=None, min_p=None):
  """Samples logits [batch, vocab_size] -> tokens int32 [batch]. Arguments as in `generate`; temperature above 0."""
  logits, tokens = _filtered(logits, temperature, top_k, top_p, min_p)
  choice = jax.random.categorical(rng, logits)
  if tokens is None:
    return choice.astype(jnp.int32)
  return jnp.take_along_axis(tokens, choice[:, None], axis=1)[:, 0].astype(jnp.int32)


def probabilities(logits, temperature, top_k=None, top_p=None, min_p=None):
  """The distribution that `sample` draws from: logits [..., vocab_size] -> probabilities float32 [..., vocab_size]"""
  flat = logits.reshape(-1, logits.shape[-1])
  filtered, tokens = _filtered(flat, temperature, top_k, top_p, min_p)
  probabilities = jax.nn.softmax(filtered)
  if tokens is not None:
    rows = jnp.arange(flat.shape[0])[:, None]
    probabilities = jnp.zeros(flat.shape, probabilities.dtype).at[rows, tokens].set(probabilities)
  return probabilities.reshape(logits.shape)


def _scaled(logits, temperature):
  """Logits over a temperature; below 1e-6, where a quotient could overflow, the largest become 0."""
  largest = logits.max(axis=-1, keepdims=True)
  shifted = logits - jnp.where(jnp.asarray(temperature) < 1e-6, largest, 0.0)
  return shifted / jnp.maximum(temperature, jnp.finfo(jnp.float32).tiny)  # Devices flush smaller ones to 0.


def _filtered(logits, temperature, top_k, top_p, min_p):
  """-> filtered logits [batch, k] and their tokens int32 [batch, k]; None: all, in vocabulary order."""
  logits, tokens = _scaled(logits.astype(jnp.float32), temperature), None
  if top_k is not None or top_p is not None:
    logits, tokens = jax.lax.top_k(logits, logits.shape[-1] if top_k is None else top_k)  # the likeliest first
  if top_p is not None:
    chances = jax.nn.softmax(logits)
    before = jnp.cumsum(chances, axis=-1) - chances
    logits = jnp.where(before < top_p, logits, -jnp.inf)
  if min_p is not None:
    threshold = logits.max(axis=-1, keepdims=True) + jnp.log(min_p)
    logits = jnp.where(logits >= threshold, logits, -jnp.inf)
  return logits, tokens


def likeliest(logits):
  """The first of the largest: [rows, vocab_size] -> int32 [rows]. Of a row with NaN, the first NaN, as argmax has it.

  In two reductions that XLA vectorizes on CPUs, which it does not do with its argmax.
  """
  best = logits.max(axis=-1, keepdims=True)
  tokens = jnp.arange(logits.shape[-1], dtype=jnp.int32)[None]
  chosen = (logits == best) | jnp.isnan(logits)
  return jnp.where(chosen, tokens, logits.shape[-1] - 1).min(axis=-1)
