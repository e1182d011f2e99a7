"""Text, token by token: the prompt in one pass; then, with keys and values cached, each token costs one position.

`generate` runs one compiled program per bucket of sizes, made of the pure functions `prefill`, `decode_step`, `sample`.
"""

import functools

import jax
import jax.numpy as jnp

from zoo.errors import UserError
from zoo.layers.stack import looped, unstack_layers


def generate(
  model, params, tokens, *, max_new_tokens, temperature=0.0, top_k=None, top_p=None, eos=None, rng=None, valid=None
):
  """Continues each prompt by max_new_tokens.

  Args:
    model: a language model that decodes, e.g. `zoo.build("gpt", "gpt2")`.
    params: its parameters.
    tokens: int [batch, prompt length]; prompts of several lengths are padded, left or right, as `valid` says.
    max_new_tokens: how many.
    temperature: 0 takes the likeliest token; above 0 draws from softmax(logits / temperature).
    top_k: draws among the k likeliest only.
    top_p: draws among the likeliest only, as few as hold this much probability. https://arxiv.org/abs/1904.09751
    eos: the token that ends a text; the rest of its row is filled with it.
    rng: a `jax.random.key`, where temperature is above 0.
    valid: bool [batch, prompt length], True = a real token; all are if None.

  Returns:
    int32 [batch, prompt length + max_new_tokens]: the prompts as given, then what was generated
  """
  tokens = jnp.asarray(tokens)
  _check(model, tokens, max_new_tokens, temperature, top_k, top_p, rng, valid)
  batch, prompt = tokens.shape
  room = _bucket(prompt, model.max_length)
  valid = jnp.ones((batch, prompt), bool) if valid is None else jnp.asarray(valid, bool)
  new = _generate(
    model,
    params,
    jnp.pad(tokens.astype(jnp.int32), ((0, 0), (0, room - prompt))),
    jnp.pad(valid, ((0, 0), (0, room - prompt))),
    jax.random.key(0) if rng is None else rng,
    jnp.int32(max_new_tokens),
    jnp.float32(temperature),
    None if top_p is None else jnp.float32(top_p),
    jnp.int32(-1 if eos is None else eos),
    room=_bucket(max_new_tokens, model.max_length),
    top_k=None if top_k is None else min(top_k, model.vocab_size),
    greedy=temperature == 0,
  )
  return jnp.concatenate([tokens.astype(jnp.int32), new[:, :max_new_tokens]], axis=1)


def prefill(model, params, tokens, valid, room):
  """Reads prompts.

  Args:
    tokens: int32 [batch, length]
    valid: bool [batch, length], True = a real token, at least one in each row.
    room: how many positions to keep free behind the prompt.

  Returns:
    logits [batch, vocab_size] of the next token, its position int32 [batch], and the cache
  """
  positions = jnp.maximum(jnp.cumsum(valid, axis=1) - 1, 0)
  last = tokens.shape[1] - 1 - jnp.argmax(valid[:, ::-1], axis=1)
  logits, state = model.apply(
    {"params": params}, tokens, valid=valid, positions=positions, predict=last[:, None], mutable=["cache"]
  )
  return logits[:, 0], positions.max(axis=1) + 1, grow(state["cache"], room)


def decode_step(model, params, cache, tokens, positions):
  """One token further: tokens, positions int32 [batch] -> logits [batch, vocab_size] of the next one, cache"""
  logits, state = model.apply(
    {"params": params, "cache": cache}, tokens[:, None], positions=positions[:, None], mutable=["cache"]
  )
  return logits[:, 0], state["cache"]


def grow(cache, room):
  """A cache of `zoo.layers.attention` with `room` more empty positions."""
  from_the_end = {"keys": -3, "values": -3, "positions": -1}  # the axis of length

  def longer(path, array):
    name = path[-1].key
    if name not in from_the_end:
      return array
    widths = [(0, 0)] * array.ndim
    widths[from_the_end[name]] = (0, room)
    return jnp.pad(array, widths, constant_values=-1 if name == "positions" else 0)

  return jax.tree_util.tree_map_with_path(longer, cache)


def sample(rng, logits, temperature, top_k=None, top_p=None):
  """Draws from logits [batch, vocab_size] -> tokens int32 [batch]. Arguments as in `generate`; temperature above 0."""
  logits = logits.astype(jnp.float32) / temperature
  if top_k is None and top_p is None:
    return jax.random.categorical(rng, logits).astype(jnp.int32)
  logits, tokens = jax.lax.top_k(logits, logits.shape[-1] if top_k is None else top_k)  # the likeliest first
  if top_p is not None:
    chances = jax.nn.softmax(logits)
    before = jnp.cumsum(chances, axis=-1) - chances
    logits = jnp.where(before < top_p, logits, -jnp.inf)
  drawn = jax.random.categorical(rng, logits)
  return jnp.take_along_axis(tokens, drawn[:, None], axis=1)[:, 0].astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("model", "room", "top_k", "greedy"))
def _generate(model, params, tokens, valid, rng, steps, temperature, top_p, eos, *, room, top_k, greedy):
  """-> int32 [batch, room], of which the first `steps` count. Compiled once per model, shapes and keywords."""

  def choose(step, logits):
    if greedy:
      return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return sample(jax.random.fold_in(rng, step), logits, temperature, top_k, top_p)

  def unfinished(state):
    step, _, _, _, done, _ = state
    return (step < steps) & ~done.all()

  def advance(state):
    step, token, position, cache, done, new = state
    logits, cache = decode_step(loop, layers, cache, token, position)
    token = jnp.where(done, eos, choose(step, logits))
    new = jax.lax.dynamic_update_slice(new, token[:, None], (0, step))
    return step + 1, token, position + 1, cache, done | (token == eos), new

  logits, position, cache = prefill(model, params, tokens, valid, room)
  # Tokens go through a loop of layers: a scan would copy each layer's weights and cache every time, which takes 1.3 to
  # 1.7 times as long on a CPU. The prompt goes through what was given: a scan compiles quicker.
  loop, layers, cache = looped(model), unstack_layers(params), unstack_layers(cache)
  token = choose(0, logits)
  new = jnp.full((tokens.shape[0], room), eos).at[:, 0].set(token)
  return jax.lax.while_loop(unfinished, advance, (jnp.int32(1), token, position, cache, token == eos, new))[-1]


def _bucket(size, limit):
  """A power of two from 16 on that holds `size`, but no more than `limit`: sizes nearby share a program."""
  return min(max(16, 1 << (size - 1).bit_length()), limit)


def _check(model, tokens, max_new_tokens, temperature, top_k, top_p, rng, valid):
  if not getattr(model, "decodes", False):
    raise UserError(
      f"{type(model).__name__} does not decode: it does not predict the next token. Use a gpt, for example."
    )
  if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
    raise UserError(
      f"tokens are {tokens.dtype} {list(tokens.shape)}. They must be whole numbers [batch, prompt length]."
    )
  batch, prompt = tokens.shape
  if not batch or not prompt:
    raise UserError(
      f"tokens have shape {list(tokens.shape)}. Give every prompt at least one token, e.g. the tokenizer's eos."
    )
  if valid is not None:
    if valid.shape != tokens.shape:
      raise UserError(
        f"valid has shape {list(valid.shape)}, tokens {list(tokens.shape)}. Give one truth value per token."
      )
    if not valid.any(axis=1).all():
      raise UserError("A row of valid is all False. Give every prompt at least one real token.")
  if max_new_tokens < 1:
    raise UserError(f"max_new_tokens is {max_new_tokens}. It must be at least 1.")
  if prompt + max_new_tokens > model.max_length:
    raise UserError(
      f"A prompt of {prompt} and max_new_tokens {max_new_tokens} exceed the model's max_length {model.max_length}. "
      f"Crop the prompt to its last {max(model.max_length - max_new_tokens, 1)} tokens or ask for fewer new ones."
    )
  if temperature < 0:
    raise UserError(f"temperature is {temperature}. It must be 0 (the likeliest token) or above.")
  if temperature > 0 and rng is None:
    raise UserError(f"temperature {temperature} draws at random and needs an rng: rng=jax.random.key(0).")
  if top_k is not None and top_k < 1:
    raise UserError(f"top_k is {top_k}. It must be at least 1, or None for all tokens.")
  if top_p is not None and not 0 < top_p <= 1:
    raise UserError(f"top_p is {top_p}. It is a probability: above 0, at most 1.")
