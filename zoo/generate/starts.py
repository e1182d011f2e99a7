"""Start tokens of encoder-decoders: fixed, or the likeliest of several, as Whisper detects languages."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from zoo.errors import UserError, family_of, shown
from zoo.generate import checks
from zoo.generate.prepared import prepared
from zoo.generate.steps import encodes, prefill


def first_tokens(
  model: Any, params: Any, tokens: Any, valid: Any, start: int | Sequence[int | Sequence[int]]
) -> tuple[jax.Array, jax.Array | None]:
  """The first tokens of every answer, and what the encoder made of `tokens` if it was needed to choose them.

  Args:
    model, params, tokens, valid: as in `generate`.
    start: a token, or several; a nested list means the likeliest of its tokens, given those before it.

  Returns:
    int32 [batch, count]; [batch, length, dim], or None

  Raises:
    UserError: the model is not an encoder-decoder, `start` is empty, or a token is outside the vocabulary.
  """
  if not encodes(model):
    raise UserError(f"start_token is for encoder-decoders; a {family_of(model)} continues tokens. Leave it out.")
  parts = list(start) if isinstance(start, Sequence) else [start]
  if not parts or isinstance(parts[0], Sequence) or any(isinstance(part, Sequence) and not part for part in parts):
    raise UserError(
      f"start_token is {shown(start)}. It must be a token, or a list of tokens and lists that begins with a token."
    )
  choices = [token for part in parts for token in (part if isinstance(part, Sequence) else [part])]
  checks.vocabulary_holds(model, start_token=choices)
  tokens = jnp.asarray(tokens)
  chosen, encoded = jnp.zeros((tokens.shape[0], 0), jnp.int32), None
  for part in parts:
    if isinstance(part, Sequence):
      reads = prepared(model, params).reads
      token, encoded = _likeliest(*reads, tokens, valid, chosen, jnp.asarray(part, jnp.int32), encoded)
    else:
      token = jnp.full(tokens.shape[0], part, jnp.int32)
    chosen = jnp.concatenate([chosen, token[:, None]], axis=1)
  return chosen, encoded


@functools.partial(jax.jit, static_argnames="model")
def _likeliest(model, params, tokens, valid, decoder_tokens, choices, encoded):
  """The likeliest next token after decoder_tokens among `choices`, int32 [k]: int32 [batch]; and what was encoded."""
  logits, _, state = prefill(model, params, tokens, valid, 0, decoder_tokens=decoder_tokens, encoded=encoded)
  return choices[jnp.argmax(logits[:, choices], axis=1)], state["encoded"]
