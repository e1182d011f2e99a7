"""Argument checks of `generate`."""

from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from zoo.errors import UserError, family_of, shown
from zoo.generate.rules import Constraints
from zoo.generate.steps import encodes

NEW_TOKENS = 100  # Default of max_new_tokens.


def decodes(model):
  """UserError for a model that does not predict next tokens."""
  if not getattr(model, "decodes", False):
    raise UserError(f"{family_of(model)} does not decode: it does not predict the next token. Use a gpt, for example.")


def array(name, value, dtype=None):
  """`value` as a jax array; UserError if that is impossible."""
  try:
    return jnp.asarray(value, dtype)
  except (TypeError, ValueError, OverflowError) as error:
    raise UserError(f"{name} is {shown(value)}, which cannot be converted to an array: {error}") from None


def tokens_fit(tokens, valid, what="tokens", name="valid", vocab_size=None):
  """UserError for prompts that are not int [batch, length], for a `valid` of another shape, or for unknown tokens."""
  if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
    raise UserError(f"{what} are {tokens.dtype} {list(tokens.shape)}. They must be ints [batch, prompt length].")
  if not all(tokens.shape):
    raise UserError(
      f"{what} have shape {list(tokens.shape)}. Give every prompt at least one token, e.g. the tokenizer's eos."
    )
  if valid is not None:
    if valid.shape != tokens.shape:
      raise UserError(f"{name} has shape {list(valid.shape)}, {what} {list(tokens.shape)}. Give one bool per token.")
    # Traced values cannot be checked.
    if not isinstance(valid, jax.core.Tracer) and not valid.any(axis=1).all():
      raise UserError(f"A row of {name} is all False. Give every prompt at least one real token.")
  if vocab_size is None or any(isinstance(array, jax.core.Tracer) for array in (tokens, valid)):
    return
  # JAX would clamp out-of-range tokens.
  unknown = np.asarray((tokens < 0) | (tokens >= vocab_size)) & (True if valid is None else np.asarray(valid))
  if unknown.any():
    token = np.asarray(tokens)[unknown][0]
    raise UserError(
      f"{what} have the token {token}, the model's tokens are 0 to {vocab_size - 1}. Use the model's own tokenizer."
    )


def source_fits(model, tokens, valid):
  """UserError for inputs that the encoder cannot read: wrong shape or too long."""
  example = model.example()[0]
  if not jnp.issubdtype(example.dtype, jnp.integer):  # Features.
    if not jnp.issubdtype(tokens.dtype, jnp.floating) or tokens.ndim != example.ndim or not all(tokens.shape):
      raise UserError(
        f"tokens are {tokens.dtype} {list(tokens.shape)}. They must be floats with as many dimensions as "
        f"{list(example.shape)}, none of them 0."
      )
    return
  # Encoder and decoder may have separate vocabularies.
  tokens_fit(tokens, valid, vocab_size=getattr(model, "source_vocab_size", model.vocab_size))
  limit = model.encoder.max_length
  if limit is not None and tokens.shape[1] > limit:
    raise UserError(f"An input of {tokens.shape[1]} tokens exceeds the encoder's max_length {limit}. Crop it.")


def new_tokens(model, tokens, decoder_tokens=None):
  """The default of max_new_tokens: NEW_TOKENS, or as many as the model's max_length leaves, at least 1."""
  decodes(model)
  name, prompt = ("decoder_tokens", decoder_tokens) if encodes(model) else ("tokens", tokens)
  shape = () if prompt is None else array(name, prompt).shape
  before = shape[1] if len(shape) == 2 else 1
  return room(model, before, NEW_TOKENS)


def room(model, before, limit):
  """At most `limit` new tokens, or as many as the model's max_length leaves after `before` tokens, at least 1."""
  return limit if model.max_length is None else max(1, min(limit, model.max_length - before))


def length_fits(model, prompt, max_new_tokens):
  """UserError if prompt and new tokens exceed the model's max_length."""
  number("max_new_tokens", max_new_tokens, integer=True, minimum=1)
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


def number(name, value, *, integer=False, minimum=None, above=None, maximum=None, what=""):
  """UserError unless `value` is a number from `minimum` (or above `above`) to `maximum`; `what` ends the message."""
  description = "an int" if integer else "a number"
  if minimum is not None or above is not None:
    description += f", {f'at least {minimum}' if above is None else f'above {above}'}"
  description += "" if maximum is None else f" and at most {maximum}"
  plain = scalar(value)
  fits = isinstance(plain, int if integer else int | float) and not isinstance(plain, bool)
  fits = fits and -(2**31) <= plain < 2**31 and (minimum is None or plain >= minimum)
  if not fits or (above is not None and plain <= above) or (maximum is not None and plain > maximum):
    raise UserError(f"{name} is {shown(value)}. It must be {description}{what}.")


def numbers(*, temperature, top_k, top_p, min_p, rng, length_penalty=1.0):
  """UserError for sampling parameters or a length penalty out of range."""
  number("temperature", temperature, minimum=0, what="; 0 takes the likeliest token")
  if rng is None:
    if temperature > 0:
      raise UserError(f"temperature {temperature} samples and needs an rng: rng=jax.random.key(0).")
  elif not isinstance(rng, jax.Array) or not (
    jnp.issubdtype(rng.dtype, jax.dtypes.prng_key) or (rng.dtype == jnp.uint32 and rng.ndim == 1)
  ):
    raise UserError(f"rng is {shown(rng)}. It must be a key: jax.random.key(0).")
  if top_k is not None:
    number("top_k", top_k, integer=True, minimum=1, what=", or None for all tokens")
  for name, value in (("top_p", top_p), ("min_p", min_p)):
    if value is not None:
      number(name, value, above=0, maximum=1, what=": a probability")
  number("length_penalty", length_penalty)


def constraints_fit(model, constraints):
  """UserError for values of `rules.Constraints` that are out of range; TypeError for an unknown keyword."""
  if unknown := [name for name in constraints if name not in Constraints.__annotations__]:
    raise TypeError(f"generate() got an unexpected keyword argument '{unknown[0]}'")
  if (penalty := constraints.get("repetition_penalty")) is not None:
    number("repetition_penalty", penalty, above=0, what="; 1 changes nothing")
  if (length := constraints.get("no_repeat_ngram")) is not None:
    number("no_repeat_ngram", length, integer=True, minimum=0, what=" of tokens, 0 or None for none")
  number("min_new_tokens", constraints.get("min_new_tokens", 0), integer=True, minimum=0)
  vocabulary_holds(model, **{name: constraints.get(name, ()) for name in ("suppress", "suppress_first")})
  unused = {scalar(token) for name in ("suppress", "suppress_first") for token in constraints.get(name, ())}
  if len(unused) >= model.vocab_size:
    raise UserError(f"suppress and suppress_first are all {model.vocab_size} tokens of the model. Leave one to choose.")
  forced_fits(model, constraints.get("forced"))
  rules_fit(constraints.get("more_rules", ()))


def beams_fit(model, *, num_beams, num_return, early_stopping, temperature, stream, return_scores):
  """UserError for options of beam search that are out of range or contradict each other."""
  if not isinstance(return_scores, bool):
    raise UserError(f"return_scores is {shown(return_scores)}. It must be True or False.")
  number("num_beams", num_beams, integer=True, minimum=1)
  if num_beams > model.vocab_size:
    raise UserError(f"num_beams is {num_beams}, the model has {model.vocab_size} tokens. Choose at most as many beams.")
  if num_return is not None:
    number("num_return", num_return, integer=True, minimum=1)
    if num_return > num_beams:
      raise UserError(f"num_return is {num_return} of num_beams {num_beams}. It must be at most num_beams.")
  if not isinstance(early_stopping, bool) and not (isinstance(early_stopping, str) and early_stopping == "never"):
    raise UserError(f"early_stopping is {shown(early_stopping)}. It must be True, False or 'never'.")
  if num_beams > 1 and temperature > 0:
    raise UserError(f"num_beams is {num_beams}, temperature {temperature}: beam search does not sample. Choose one.")
  if num_beams > 1 and stream is not None:
    raise UserError(f"num_beams is {num_beams}: beam search has its tokens only at the end. Leave out stream.")
  if stream is not None and not callable(stream):
    raise UserError(f"stream is {shown(stream)}. It must be a function, which is called with the tokens of each step.")


def token_list(name, value):
  """An iterable of token ids as a list; UserError for anything else."""
  if isinstance(value, str | bytes) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
    raise UserError(f"{name} is {shown(value)}. It must be a list of token ids.")
  return list(value)


def vocabulary_holds(model, **tokens):
  """UserError for token ids outside the model's vocabulary."""
  for name, values in tokens.items():
    for token in token_list(name, values):
      plain = scalar(token)
      if not isinstance(plain, int) or isinstance(plain, bool):
        raise UserError(f"{name} has {shown(token)}. Its tokens must be ints.")
      if not 0 <= plain < model.vocab_size:
        raise UserError(f"{name} has token {token}, the model's tokens are 0 to {model.vocab_size - 1}.")


def forced_fits(model, forced):
  """UserError unless `forced` is a mapping from steps to tokens, or None."""
  if forced is None:
    return
  if not isinstance(forced, Mapping):
    raise UserError(f"forced is {shown(forced)}. It must be a dict of steps to tokens: {{0: 7}}.")
  for step in forced:
    number("A step of forced", step, integer=True)
  vocabulary_holds(model, forced=forced.values())


def rules_fit(more_rules):
  """UserError for rules that are not callable, or that are not pytrees of arrays."""
  if not isinstance(more_rules, Sequence) or isinstance(more_rules, str):
    raise UserError(f"more_rules is {shown(more_rules)}. It must be a list of rules (zoo.generate.rules).")
  for rule in more_rules:
    if not callable(rule) or any(leaf is rule for leaf in jax.tree.leaves(rule)):
      raise UserError(
        f"more_rules has {shown(rule)}. A rule is a NamedTuple of arrays with a method __call__(logits, text)."
      )


def decoder_inputs_fit(model, decoder_tokens, decoder_valid):
  """UserError for decoder inputs of a model that is not an encoder-decoder."""
  if not encodes(model) and (decoder_tokens is not None or decoder_valid is not None):
    raise UserError(
      f"decoder_tokens and decoder_valid are for encoder-decoders, and a {family_of(model)} is not one. Leave them out."
    )


def cache_dtype_is_known(dtype):
  """UserError for a dtype that the key-value cache does not support."""
  if not isinstance(dtype, str | None) or dtype not in (None, "float32", "bfloat16", "float16", "int8"):
    raise UserError(f"cache_dtype is {shown(dtype)}. It must be 'bfloat16', 'int8', 'float16', 'float32' or None.")
