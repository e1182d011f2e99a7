"""Speculative decoding: a small draft model proposes several tokens, which the model verifies in one pass.

The output has exactly the distribution of the model alone. https://arxiv.org/abs/2211.17192, algorithm 1.
"""

import functools

import jax
import jax.numpy as jnp

from zoo.errors import UserError
from zoo.generate import checks
from zoo.generate.prepared import prepared
from zoo.generate.prompts import Source
from zoo.generate.sampling import probabilities
from zoo.generate.steps import decode_step, decode_steps, encodes, prefill
from zoo.layers import caches
from zoo.layers.attention import with_caches
from zoo.layers.parts import has_part
from zoo.layers.recurrent import Recurrent
from zoo.layers.stack import unstack_layers


def speculate(
  model, params, draft, draft_params, tokens, *,
  max_new_tokens, draft_tokens=4, temperature=0.0, top_k=None, top_p=None, min_p=None, eos=None, pad=None, rng=None,
  valid=None,
):  # fmt: skip
  """Continues each prompt as `generate` does, in fewer forward passes of the model if the draft predicts well.

  Args:
    model, params: a decoder.
    draft, draft_params: a smaller one with the same vocabulary.
    tokens: int [batch, prompt length]
    draft_tokens: number of tokens that the draft proposes at a time.
    max_new_tokens, temperature, top_k, top_p, min_p, eos, pad, rng, valid: as in `generate`; one eos.

  Returns:
    int32 [batch, prompt length + max_new_tokens]: at temperature 0 the tokens of `generate`, above it draws of the same
    distribution (not the same draws)

  Raises:
    UserError: the models do not fit together, or an argument is out of range.
  """
  checks.numbers(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, rng=rng)
  for decoder in (model, draft):
    checks.decodes(decoder)
  if model.vocab_size != draft.vocab_size:
    raise UserError(
      f"The draft's vocabulary has {draft.vocab_size} tokens, the model's {model.vocab_size}. Choose another draft."
    )
  for decoder in (model, draft):
    source = Source.of(decoder, tokens, valid, None, None, max_new_tokens)
    if encodes(decoder):
      raise UserError(
        f"Speculative decoding takes decoders; a {type(decoder).__name__} has an encoder too. Use generate."
      )
    if has_part(decoder, Recurrent):
      raise UserError(
        "Speculative decoding rolls back rejected tokens, which the state of a recurrent network already includes. "
        "Use generate."
      )
  checks.number("draft_tokens", draft_tokens, integer=True, minimum=1)
  checks.vocabulary_holds(model, eos=() if eos is None else (eos,))
  checks.number("pad", 0 if pad is None else pad, integer=True)
  size = source.columns + draft_tokens
  models = [with_caches(decoder, lambda attention: caches.RingCache(size)) for decoder in (model, draft)]
  static = {"room": source.room, "top_k": None if top_k is None else min(top_k, model.vocab_size)}
  static |= {"greedy": temperature == 0, "num_draft": draft_tokens}
  ready = [prepared(*each_prepared) for each_prepared in zip(models, (params, draft_params), strict=True)]
  reads, loops = [each_prepared.reads for each_prepared in ready], [each_prepared.steps for each_prepared in ready]
  new = _speculate(
    *(reader for reader, _ in reads), *(model_params for _, model_params in reads), [layers for _, layers in loops],
    source.inputs["tokens"], source.inputs["valid"],
    jax.random.key(0) if rng is None else rng, jnp.int32(max_new_tokens),
    jnp.float32(temperature or 1.0),
    None if top_p is None else jnp.float32(top_p),
    None if min_p is None else jnp.float32(min_p),
    jnp.int32(-1 if eos is None else eos),
    jnp.int32((0 if eos is None else eos) if pad is None else pad),
    loops=tuple(loop for loop, _ in loops), **static,
  )  # fmt: skip
  return jnp.concatenate([source.prompt, new[:, :max_new_tokens]], axis=1)


@functools.partial(
  jax.jit, static_argnames=("model", "draft", "loops", "room", "top_k", "greedy", "num_draft"), static_argnums=(0, 1)
)
def _speculate(
  model, draft, params, draft_params, layers, tokens, valid, rng, steps, temperature, top_p, min_p, eos, pad, *,
  loops, room, top_k, greedy, num_draft,
):  # fmt: skip
  """-> int32 [batch, room + num_draft + 1], of which the first `steps` count."""
  batch = tokens.shape[0]
  rows = jnp.arange(batch)[:, None]

  def distribution(logits):
    """The sampling distribution [..., vocab_size]."""
    if greedy:
      return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])
    return probabilities(logits, temperature, top_k, top_p, min_p)

  def draw(key, probabilities):
    return jax.random.categorical(key, jnp.log(probabilities)).astype(jnp.int32)

  def unfinished(state):
    return (state["count"] < steps).any()

  def one_round(state):
    key = jax.random.fold_in(rng, state["round"])
    token, start = state["token"], state["position"]

    def propose(carry, i):
      inner, token = carry
      logits, inner = decode_step(loops[1], layers[1], inner, token, start + i)
      chance = distribution(logits)
      token = draw(jax.random.fold_in(key, i), chance)
      return (inner, token), (token, chance)

    # One more step: the draft must have read its last proposal in case it is accepted.
    carry, (proposed, draft_chance) = jax.lax.scan(propose, (state["draft"], token), jnp.arange(num_draft + 1))
    proposed = proposed[:num_draft].T  # [batch, num_draft]
    draft_chance = jnp.moveaxis(draft_chance, 0, 1)[:, :num_draft]
    tokens_read = jnp.concatenate([token[:, None], proposed], axis=1)
    positions = start[:, None] + jnp.arange(num_draft + 1)[None]
    logits, inner = decode_steps(loops[0], layers[0], state["model"], tokens_read, positions)
    chance = distribution(logits)  # [batch, num_draft + 1, vocab_size]

    take = lambda array: jnp.take_along_axis(array[:, :num_draft], proposed[:, :, None], axis=2)[:, :, 0]
    uniform = jax.random.uniform(jax.random.fold_in(key, num_draft + 1), (batch, num_draft))
    accepted = jnp.cumprod(uniform * take(draft_chance) < take(chance), axis=1)
    num_accepted = accepted.sum(axis=1)  # [batch], 0 to num_draft
    # After a rejection the next token is drawn from the residual max(p - q, 0); else from the model's distribution.
    residual = jnp.maximum(chance[:, :num_draft] - draft_chance, 0)
    candidates = jnp.concatenate([residual, chance[:, num_draft:]], axis=1)
    candidates = jnp.take_along_axis(candidates, num_accepted[:, None, None], axis=1)[:, 0]
    last = draw(jax.random.fold_in(key, num_draft + 2), candidates / candidates.sum(axis=-1, keepdims=True))
    new_tokens = jnp.concatenate([proposed, jnp.zeros((batch, 1), jnp.int32)], axis=1)
    new_tokens = new_tokens.at[rows[:, 0], num_accepted].set(last)

    # Finished sequences do not advance.
    unfinished_rows = state["count"] < steps
    real = (jnp.arange(num_draft + 1)[None] <= num_accepted[:, None]) & unfinished_rows[:, None]
    column = jnp.where(real, state["count"][:, None] + jnp.arange(num_draft + 1)[None], state["new"].shape[1])
    new = state["new"].at[rows, column].set(new_tokens, mode="drop")
    ended = (real & (new_tokens == eos)).any(axis=1)
    count = jnp.where(ended, steps, state["count"] + jnp.where(unfinished_rows, num_accepted + 1, 0))
    advance = jnp.where(unfinished_rows, num_accepted + 1, 0)
    return {
      "round": state["round"] + 1,
      "token": jnp.where(unfinished_rows, last, token),
      "position": start + advance,
      "count": count,
      "new": new,
      "model": inner,
      "draft": carry[0],
    }

  logits, position, inner = prefill(model, params, tokens, valid, 0)
  _, _, draft_state = prefill(draft, draft_params, tokens, valid, 0)
  first = draw(jax.random.fold_in(jax.random.fold_in(rng, 0), num_draft + 3), distribution(logits))
  state = {
    "round": jnp.int32(0),
    "token": first,
    "position": position,
    "count": jnp.where(first == eos, steps, 1),
    "new": jnp.full((batch, room + num_draft + 1), pad).at[:, 0].set(first),
    "model": unstack_layers(inner),
    "draft": unstack_layers(draft_state),
  }
  new = jax.lax.while_loop(unfinished, one_round, state)["new"]
  ends = jnp.cumsum(new == eos, axis=1) - (new == eos)
  return jnp.where(ends > 0, pad, new)
