"""Argument checks of `generate`."""

from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from zoo.errors import UserError, kind_of, shown
from zoo.generate.steps import encodes


def decodes(model):
  """UserError for a model that does not predict the next token."""
  if not getattr(model, "decodes", False):
    raise UserError(f"{kind_of(model)} does not decode: it does not predict the next token. Use a gpt, for example.")


def array(name, value, dtype=None):
  """`value` as a jax array; UserError if that is impossible."""
  try:
    return jnp.asarray(value, dtype)
  except (TypeError, ValueError, OverflowError) as error:
    raise UserError(f"{name} is {shown(value)}, of which no array can be made: {error}") from None


def tokens_fit(tokens, valid, what="tokens", name="valid", vocab_size=None):
  """Refuses prompts that are no rows of tokens, or of which `valid` does not tell what is real."""
  if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
    raise UserError(
      f"{what} are {tokens.dtype} {list(tokens.shape)}. They must be whole numbers [batch, prompt length]."
    )
  if not all(tokens.shape):
    raise UserError(
      f"{what} have shape {list(tokens.shape)}. Give every prompt at least one token, e.g. the tokenizer's eos."
    )
  if valid is not None:
    if valid.shape != tokens.shape:
      raise UserError(
        f"{name} has shape {list(valid.shape)}, {what} {list(tokens.shape)}. Give one truth value per token."
      )
    # Traced values are unknown.
    if not isinstance(valid, jax.core.Tracer) and not valid.any(axis=1).all():
      raise UserError(f"A row of {name} is all False. Give every prompt at least one real token.")
  if vocab_size is None or any(isinstance(array, jax.core.Tracer) for array in (tokens, valid)):
    return
  # JAX would clamp out-of-range tokens.
  strange = np.asarray((tokens < 0) | (tokens >= vocab_size)) & (True if valid is None else np.asarray(valid))
  if strange.any():
    token = np.asarray(tokens)[strange][0]
    raise UserError(f"{what} have the token {token}, the model's are 0 to {vocab_size - 1}. Is it another's tokenizer?")


def source_fits(model, tokens, valid):
  """UserError for inputs that the encoder cannot read: wrong shape or too long."""
  example = model.example()[0]
  if not jnp.issubdtype(example.dtype, jnp.integer):  # Features.
    if not jnp.issubdtype(tokens.dtype, jnp.floating) or tokens.ndim != example.ndim or not all(tokens.shape):
      raise UserError(
        f"tokens are {tokens.dtype} {list(tokens.shape)}. They must be floats of as many dimensions as "
        f"{list(example.shape)}, none of them 0."
      )
    return
  # Encoder and decoder may have separate vocabularies.
  tokens_fit(tokens, valid, vocab_size=getattr(model, "source_vocab_size", model.vocab_size))
  limit = model.encoder.max_length
  if limit is not None and tokens.shape[1] > limit:
    raise UserError(f"A text of {tokens.shape[1]} tokens exceeds what the encoder reads, {limit}. Crop it.")


def length_fits(model, prompt, max_new_tokens):
  """Refuses more tokens than the model has positions."""
  number("max_new_tokens", max_new_tokens, whole=True, least=1)
  if model.max_length is not None and prompt + max_new_tokens > model.max_length:
    room = model.max_length - max_new_tokens
    crop = f"Crop the prompt to its last {room} tokens or ask" if room > 0 else "Ask"
    raise UserError(
      f"A prompt of {prompt} and max_new_tokens {max_new_tokens} exceed the model's max_length {model.max_length}. "
      f"{crop} for fewer new ones."
    )


def scalar(value):
  """NumPy and JAX scalars as Python scalars; anything else unchanged."""
  is_one = getattr(value, "ndim", None) == 0 and jnp.issubdtype(value.dtype, np.number)
  return value.item() if is_one else value


def number(name, value, *, whole=False, least=None, above=None, most=None, what=""):
  """Refuses what is no number, or is out of its range: `least` or `above` to `most`; `what` says what it may be."""
  description = f"a {'whole ' if whole else ''}number"
  if least is not None or above is not None:
    description += f", {f'at least {least}' if above is None else f'above {above}'}"
  description += "" if most is None else f" and at most {most}"
  plain = scalar(value)
  fits = isinstance(plain, int if whole else int | float) and not isinstance(plain, bool)
  fits = fits and -(2**31) <= plain < 2**31 and (least is None or plain >= least)
  if not fits or (above is not None and plain <= above) or (most is not None and plain > most):
    raise UserError(f"{name} is {shown(value)}. It must be {description}{what}.")


def numbers(
  *, temperature, top_k, top_p, min_p, rng, repetition_penalty=None, no_repeat_ngram=None, min_new_tokens=0,
  length_penalty=1.0,
):  # fmt: skip
  """Refuses settings of draws and rules that are out of their range."""
  number("temperature", temperature, least=0, what="; 0 takes the likeliest token")
  if rng is None:
    if temperature > 0:
      raise UserError(f"temperature {temperature} draws at random and needs an rng: rng=jax.random.key(0).")
  elif not isinstance(rng, jax.Array) or not (
    jnp.issubdtype(rng.dtype, jax.dtypes.prng_key) or (rng.dtype == jnp.uint32 and rng.ndim == 1)
  ):
    raise UserError(f"rng is {shown(rng)}. It must be a key: jax.random.key(0).")
  if top_k is not None:
    number("top_k", top_k, whole=True, least=1, what=", or None for all tokens")
  for name, value in (("top_p", top_p), ("min_p", min_p)):
    if value is not None:
      number(name, value, above=0, most=1, what=": a probability")
  if repetition_penalty is not None:
    number("repetition_penalty", repetition_penalty, above=0, what="; 1 changes nothing")
  if no_repeat_ngram is not None:
    number("no_repeat_ngram", no_repeat_ngram, whole=True, least=0, what=" of tokens, 0 or None for none")
  number("min_new_tokens", min_new_tokens, whole=True, least=0)
  number("length_penalty", length_penalty)


def beams_fit(*, num_beams, num_return, early_stopping, temperature, stream, return_scores):
  """Refuses what beam search cannot do, and what a loop cannot give back."""
  if not isinstance(return_scores, bool):
    raise UserError(f"return_scores is {shown(return_scores)}. It must be True or False.")
  number("num_beams", num_beams, whole=True, least=1)
  if num_return is not None:
    number("num_return", num_return, whole=True, least=1)
    if num_return > num_beams:
      raise UserError(f"num_return is {num_return} of num_beams {num_beams}. It must be at most num_beams.")
  if not isinstance(early_stopping, bool) and not (isinstance(early_stopping, str) and early_stopping == "never"):
    raise UserError(f"early_stopping is {shown(early_stopping)}. It must be True, False or 'never'.")
  if num_beams > 1 and temperature > 0:
    raise UserError(f"num_beams is {num_beams}, temperature {temperature}: beam search does not draw. Choose one.")
  if num_beams > 1 and stream is not None:
    raise UserError(f"num_beams is {num_beams}: beam search knows its tokens at the end only. Leave out stream.")
  if stream is not None and not callable(stream):
    raise UserError(f"stream is {shown(stream)}. It must be a function, which is called with the tokens of each step.")


def listed(name, value):
  """What is iterated over, as a list; UserError for what cannot be."""
  if isinstance(value, str | bytes) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
    raise UserError(f"{name} is {shown(value)}. It must be a list of tokens.")
  return list(value)


def vocabulary_holds(model, **tokens):
  """Refuses tokens that the model does not have."""
  for name, values in tokens.items():
    for token in listed(name, values):
      plain = scalar(token)
      if not isinstance(plain, int) or isinstance(plain, bool):
        raise UserError(f"{name} has {shown(token)}. Its tokens must be whole numbers.")
      if not 0 <= plain < model.vocab_size:
        raise UserError(f"{name} has token {token}, the model's are 0 to {model.vocab_size - 1}.")


def forced_fits(model, forced):
  """Refuses forced tokens that are no mapping from steps to tokens."""
  if forced is None:
    return
  if not isinstance(forced, Mapping):
    raise UserError(f"forced is {shown(forced)}. It must be a dict of steps to tokens: {{0: 7}}.")
  for step in forced:
    number("A step of forced", step, whole=True)
  vocabulary_holds(model, forced=forced.values())


def rules_fit(more_rules):
  """Refuses rules that cannot be called, or that no compiled program can be given."""
  if not isinstance(more_rules, Sequence) or isinstance(more_rules, str):
    raise UserError(f"more_rules is {shown(more_rules)}. It must be a list of rules (zoo.generate.rules).")
  for rule in more_rules:
    if not callable(rule) or any(leaf is rule for leaf in jax.tree.leaves(rule)):
      raise UserError(
        f"more_rules has {shown(rule)}. A rule is a NamedTuple of arrays with a method __call__(logits, text)."
      )


def of_encoder_only(model, decoder_tokens, decoder_valid):
  """Refuses a beginning of the answer where prompt and answer are one text."""
  if not encodes(model) and (decoder_tokens is not None or decoder_valid is not None):
    raise UserError(
      f"decoder_tokens and decoder_valid are of encoder-decoders; a {kind_of(model)} goes on from tokens."
    )


def cache_dtype_is_known(dtype):
  """Refuses what keys and values cannot be kept in."""
  if not isinstance(dtype, str | None) or dtype not in (None, "float32", "bfloat16", "float16", "int8"):
    raise UserError(f"cache_dtype is {shown(dtype)}. It must be 'bfloat16', 'int8', 'float16', 'float32' or None.")
