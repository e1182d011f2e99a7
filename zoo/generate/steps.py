"""Building blocks of decoding loops: prefill, decode step, growing the cache."""

import jax
import jax.numpy as jnp

from zoo.layers import caches
from zoo.layers.attention import with_caches
from zoo.layers.products import as_built
from zoo.tree import variables

FROM_THE_END = {"keys": -2, "values": -2, "keys_scales": -1, "values_scales": -1, "positions": -1}  # axis of the length


def encodes(model):
  """Whether the model is an encoder-decoder."""
  return hasattr(model, "encode") and hasattr(model, "decode")


def prefill(model, params, tokens, valid, room, *, decoder_tokens=None, decoder_valid=None, encoded=None):
  """Reads prompts.

  Args:
    tokens: int32 [batch, length]; for an encoder-decoder the encoder's input.
    valid: bool [batch, length], True = a real token, at least one in each row; None: all are.
    room: number of free positions after the prompt.
    decoder_tokens: int32 [batch, decoder length], the decoder's prompt of an encoder-decoder; the model's start_token
      if None.
    decoder_valid: bool [batch, decoder length], as valid.
    encoded: what the encoder makes of tokens, if it is known.

  Returns:
    logits [batch, vocab_size] of the next token, its position int32 [batch], and the state for `decode_step`: for
    a decoder its cache.
  """
  params = as_built(params)
  if not encodes(model):
    logits, position, cache = _read_prompt(model, variables(params), tokens, valid)
    return logits, position, grow(cache, room)
  if encoded is None:
    encoded = model.apply(variables(params), tokens, valid=valid, method="encode")
  if decoder_tokens is None:
    decoder_tokens = jnp.full((tokens.shape[0], 1), model.start_token, jnp.int32)
  more = {"method": "decode", "of": (encoded,), "keywords": {} if valid is None else {"valid": valid}}
  logits, position, cache = _read_prompt(
    model, variables(params), decoder_tokens, decoder_valid, "decoder_valid", **more
  )
  state = {"cache": grow(cache, room), "encoded": encoded}
  return logits, position, state if valid is None else {**state, "valid": valid}


def with_caches_for(model, columns, dtype=None):
  """The model with key-value caches for `columns` tokens.

  Layers with a shorter attention window use a ring buffer of that length.

  Args:
    model: a decoder or an encoder-decoder.
    columns: length of prompt, padding and new tokens.
    dtype: of keys and values, "bfloat16" or "int8"; the computation dtype if None.
  """

  def choose(attention):
    back = attention.lookback
    return caches.FullCache(dtype) if back is None or back + 1 >= columns else caches.RingCache(back + 1, dtype)

  return with_caches(model, choose)


def _read_prompt(model, variables, tokens, valid, name="valid", *, of=(), keywords=None, **options):
  """Logits of the next token [batch, vocab_size], its position [batch], the cache."""
  valid = jnp.ones(tokens.shape, bool) if valid is None else valid
  positions = jnp.maximum(jnp.cumsum(valid, axis=1) - 1, 0).astype(jnp.int32)
  last = tokens.shape[1] - 1 - jnp.argmax(valid[:, ::-1], axis=1)
  keywords = {"positions": positions, "predict": last[:, None], **(keywords or {}), name: valid}
  logits, state = model.apply(variables, tokens, *of, **keywords, **options, mutable=["cache"])
  return logits[:, 0], positions.max(axis=1) + 1, state.get("cache", {})


def decode_step(model, params, state, tokens, positions):
  """Decodes one token.

  Args:
    state: from `prefill` or the previous step.
    tokens, positions: int32 [batch], of the newest token.

  Returns:
    logits [batch, vocab_size] of the next token, state
  """
  logits, state = decode_steps(model, params, state, tokens[:, None], positions[:, None])
  return logits[:, 0], state


def decode_steps(model, params, state, tokens, positions):
  """Decodes several tokens: int32 [batch, length] each -> logits [batch, length, vocab_size], state"""
  params = as_built(params)
  if not encodes(model):
    logits, updated = model.apply({**variables(params), "cache": state}, tokens, positions=positions, mutable=["cache"])
    return logits, updated["cache"]
  keywords = {"positions": positions, "valid": state.get("valid"), "method": "decode", "mutable": ["cache"]}
  logits, updated = model.apply({**variables(params), "cache": state["cache"]}, tokens, state["encoded"], **keywords)
  return logits, {**state, "cache": updated.get("cache", {})}


def grow(cache, room):
  """A cache of `zoo.layers.attention` with `room` more empty positions."""

  def lengthened(path, array):
    name = path[-1].key
    if name not in FROM_THE_END:
      return array
    widths = [(0, 0)] * array.ndim
    widths[FROM_THE_END[name]] = (0, room)
    return jnp.pad(array, widths, constant_values=-1 if name == "positions" else 0)

  return jax.tree_util.tree_map_with_path(lengthened, cache)


def stopped(text, valid, end, stop):
  """bool [batch]: which rows end with a sequence of `stop`; their last token is in column `end`."""
  if stop is None:
    return jnp.zeros(text.shape[0], bool)
  before = end - jnp.arange(stop.shape[1])[::-1]
  last, real = text[:, jnp.maximum(before, 0)], valid[:, jnp.maximum(before, 0)] & (before >= 0)[None]
  equal = (last[:, None] == stop[None]) & real[:, None]
  return (equal | (stop < 0)[None]).all(axis=2).any(axis=1)


def right_aligned(inputs, room):
  """The prompt's tokens right-aligned, with `room` free columns after them, and their `valid`."""
  name = "decoder_" if "decoder_tokens" in inputs else ""
  tokens, valid = inputs[f"{name}tokens"], inputs[f"{name}valid"]
  order = jnp.argsort(valid, axis=1, stable=True)
  aligned = [jnp.take_along_axis(array, order, axis=1) for array in (tokens, valid)]
  return [jnp.pad(array, ((0, 0), (0, room))) for array in aligned]
