"""Inputs of the decoding loop: prompts, checked and padded to buckets, and settings that never recompile."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.generate import checks, rules
from zoo.generate.steps import encodes


class Source(NamedTuple):
  """The prompt as given, and `inputs` of `prefill`, padded to their buckets."""

  prompt: jax.Array
  inputs: dict
  room: int

  @property
  def columns(self):
    """Columns of the padded prompt plus the new tokens."""
    return self.inputs.get("decoder_tokens", self.inputs["tokens"]).shape[1] + self.room

  @classmethod
  def of(cls, model, tokens, valid, decoder_tokens, decoder_valid, max_new_tokens):
    """Checks and pads a prompt; arguments as in `generate`."""
    checks.decodes(model)
    checks.decoder_inputs_fit(model, decoder_tokens, decoder_valid)
    tokens = checks.array("tokens", tokens)
    # Copies: an input that a program returns would alias the caller's array, which `advance` donates.
    valid = None if valid is None else jnp.array(checks.array("valid", valid, bool))
    if not encodes(model):
      checks.tokens_fit(tokens, valid, vocab_size=model.vocab_size)
      checks.length_fits(model, tokens.shape[1], max_new_tokens)
      prompt, inputs = tokens, _padded(tokens, valid, model.max_length)
    else:
      checks.source_fits(model, tokens, valid)
      if decoder_tokens is None:
        decoder_tokens = jnp.full((tokens.shape[0], 1), model.start_token, jnp.int32)
      prompt = checks.array("decoder_tokens", decoder_tokens)
      decoder_valid = None if decoder_valid is None else checks.array("decoder_valid", decoder_valid, bool)
      checks.tokens_fit(prompt, decoder_valid, "decoder_tokens", "decoder_valid", model.vocab_size)
      checks.length_fits(model, prompt.shape[1], max_new_tokens)
      if jnp.issubdtype(tokens.dtype, jnp.integer):
        inputs = _padded(tokens, valid, model.encoder.max_length)
      else:
        inputs = {"tokens": tokens, "valid": valid}
      # Most answers begin with one token.
      decoder = _padded(prompt, decoder_valid, 1 if prompt.shape[1] == 1 else model.max_length)
      inputs |= {f"decoder_{name}": array for name, array in decoder.items()}
    return cls(prompt.astype(jnp.int32), inputs, bucket(max_new_tokens, model.max_length))


class Settings(NamedTuple):
  """Dynamic arguments of both programs; only `None` and the types of rules are static."""

  steps: jax.Array
  ends: jax.Array
  stop: jax.Array | None
  pad: jax.Array
  rng: jax.Array
  temperature: jax.Array
  top_p: jax.Array | None
  min_p: jax.Array | None
  rules: tuple

  @classmethod
  def of(cls, model, *, max_new_tokens, temperature, top_p, min_p, eos, stop, pad, rng, constraints):
    """Checks what ends a text, and pad; arguments as in `generate`, of which the others are checked before."""
    ends = end_tokens(eos)
    checks.vocabulary_holds(model, eos=ends)
    stop = [checks.token_list("stop", row) for row in checks.token_list("stop", stop)]
    checks.vocabulary_holds(model, stop=[token for row in stop for token in row])
    checks.number("pad", 0 if pad is None else pad, integer=True)
    return cls(
      steps=jnp.int32(max_new_tokens),
      ends=jnp.asarray(ends or (-1,), jnp.int32),
      stop=stop_sequences(stop),
      pad=jnp.int32((ends[0] if ends else 0) if pad is None else pad),
      rng=jax.random.key(0) if rng is None else rng,
      temperature=jnp.float32(temperature),
      top_p=None if top_p is None else jnp.float32(top_p),
      min_p=None if min_p is None else jnp.float32(min_p),
      rules=rules.from_keywords(ends=ends, **constraints),
    )


def end_tokens(eos):
  """The tokens that end a text, as a tuple: of one, several or None."""
  return () if eos is None else tuple(eos) if isinstance(eos, Sequence) else (eos,)


def stop_sequences(stop):
  """int32 [sequences, longest], left-padded with -1; None if there are none."""
  if not len(stop):
    return None
  longest = max(map(len, stop))
  return jnp.asarray([[-1] * (longest - len(row)) + list(row) for row in stop], jnp.int32)


def _padded(tokens, valid, limit):
  """Right-pads tokens and valid to a bucket."""
  batch, length = tokens.shape
  padding = ((0, 0), (0, bucket(length, limit) - length))
  valid = jnp.ones((batch, length), bool) if valid is None else valid
  return {"tokens": jnp.pad(tokens.astype(jnp.int32), padding), "valid": jnp.pad(valid, padding)}


def bucket(size, limit):
  """The smallest of 16, 24, 32, 48, 64, 96, ... that holds `size`, at most `limit`: similar sizes share a program."""
  power = max(16, 1 << (size - 1).bit_length())
  rounded = power if power == 16 or size > 3 * power // 4 else 3 * power // 4
  return rounded if limit is None else min(rounded, limit)
