"""Beam search.

Follows `transformers.generation.utils._beam_search` step by step, so that both return the same texts.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.generate import rules
from zoo.generate.prepared import prepared
from zoo.generate.steps import decode_step, prefill, right_aligned, stopped
from zoo.layers.stack import unstack_layers

MASKED_SCORE = -1e9  # The score of forbidden candidates.


class Beams(NamedTuple):
  """State of beam search between two tokens: running and finished beams, the best first.

  step: int32, number of generated tokens.
  text, valid: [batch * beams, columns]: the right-aligned prompt, then `room` columns.
  scores: float32 [batch, beams], sums of log-probabilities of the running beams.
  ended: int32 [batch, beams, room], ended_scores: float32 [batch, beams], over length ** length_penalty.
  finished: bool [batch, beams], True for slots with a finished text.
  can_improve: bool [batch], whether a running beam may still become better.
  unfinished: bool, whether any of them do.
  position: int32 [batch * beams], of the newest token.
  model: state of `prefill`.
  """

  step: jax.Array
  text: jax.Array
  valid: jax.Array
  scores: jax.Array
  ended: jax.Array
  ended_scores: jax.Array
  finished: jax.Array
  can_improve: jax.Array
  unfinished: jax.Array
  position: jax.Array
  model: Any


STATIC = ("model", "room", "beams", "early_stopping", "ends")


@functools.partial(jax.jit, static_argnames=STATIC)
def begin(model, params, inputs, settings, length_penalty, *, room, beams, early_stopping, ends):
  """Prefill: reads the prompt and chooses the first tokens."""
  logits, position, state = prefill(model, params, **inputs, room=room)
  text, valid = right_aligned(inputs, room)
  batch = text.shape[0]
  per_beam = lambda tree: jax.tree.map(lambda array: jnp.repeat(array, beams, axis=0) if array.ndim else array, tree)
  start = jnp.full((batch, beams), MASKED_SCORE).at[:, 0].set(0.0)  # All beams are equal: only one is kept.
  state = Beams(
    step=jnp.int32(0),
    text=per_beam(jnp.where(valid, text, settings.pad)),
    valid=per_beam(valid),
    scores=start,
    ended=jnp.full((batch, beams, room), settings.pad),
    ended_scores=jnp.full((batch, beams), MASKED_SCORE),
    finished=jnp.zeros((batch, beams), bool),
    can_improve=jnp.ones(batch, bool),
    unfinished=jnp.bool_(True),
    position=per_beam(position - 1),
    model=_each_row(lambda array: jnp.repeat(array, beams, axis=0), unstack_layers(state)),
  )
  return _extend(state, per_beam(logits), settings, length_penalty, room, beams, early_stopping, ends)


@functools.partial(jax.jit, static_argnames=STATIC, donate_argnames="state")
def advance(model, params, state, settings, length_penalty, *, room, beams, early_stopping, ends):
  """Runs until no running beam can become one of the best."""

  def step(state):
    newest = jax.lax.dynamic_slice_in_dim(state.text, state.text.shape[1] - room + state.step - 1, 1, axis=1)[:, 0]
    logits, inner = decode_step(model, params, state.model, newest, state.position)
    state = state._replace(model=inner)
    return _extend(state, logits, settings, length_penalty, room, beams, early_stopping, ends)

  return jax.lax.while_loop(lambda state: state.unfinished, step, state)


def _extend(state, logits, settings, length_penalty, room, beams, early_stopping, ends):
  """One step of beam search; logits [batch * beams, vocab_size]."""
  batch, vocab_size = state.scores.shape[0], logits.shape[1]
  end = state.text.shape[1] - room + state.step
  text_so_far = rules.Text(state.text, state.valid, end, state.step, settings.steps)
  log_probabilities = rules.apply(settings.rules, jax.nn.log_softmax(logits), text_so_far).reshape(
    batch, beams, vocab_size
  )

  # Enough candidates that `beams` of them keep running even if every beam produced each eos.
  keep = max(2, 1 + ends) * beams
  sums, index = jax.lax.top_k((log_probabilities + state.scores[:, :, None]).reshape(batch, -1), keep)
  source, token = index // vocab_size, (index % vocab_size).astype(jnp.int32)
  rows = (source + beams * jnp.arange(batch)[:, None]).reshape(-1)
  text = jax.lax.dynamic_update_slice(state.text[rows], token.reshape(-1, 1), (0, end))
  valid = jax.lax.dynamic_update_slice(state.valid[rows], jnp.ones((len(rows), 1), bool), (0, end))
  ends_text = (token[:, :, None] == settings.ends[None, None]).any(axis=2) | (state.step + 1 >= settings.steps)
  ends_text |= stopped(text, valid, end, settings.stop).reshape(batch, keep)

  running = sums + ends_text * MASKED_SCORE
  scores, best = jax.lax.top_k(running, beams)
  from_rows = jnp.take_along_axis(rows.reshape(batch, keep), best, axis=1).reshape(-1)
  kept_rows = (best + keep * jnp.arange(batch)[:, None]).reshape(-1)

  new = text.reshape(batch, keep, -1)[:, :, -room:]
  full = state.finished.all(axis=1) & (early_stopping is True)
  ending = ends_text & (jnp.arange(keep) < beams)[None]
  ending_scores = sums / (state.step + 1).astype(jnp.float32) ** length_penalty
  ending_scores += (
    (full * MASKED_SCORE)[:, None] + (~state.can_improve * MASKED_SCORE)[:, None] + ~ending * MASKED_SCORE
  )
  ended_scores, best = jax.lax.top_k(jnp.concatenate([state.ended_scores, ending_scores], axis=1), beams)
  ended = jnp.take_along_axis(jnp.concatenate([state.ended, new], axis=1), best[:, :, None], axis=1)
  finished = jnp.take_along_axis(jnp.concatenate([state.finished, ending], axis=1), best, axis=1)

  step = state.step + 1
  length = settings.steps if early_stopping == "never" else step
  length = jnp.where(length_penalty > 0, length, step).astype(jnp.float32)
  best_possible = scores[:, :1] / length**length_penalty
  worst = jnp.where(finished, ended_scores.min(axis=1, keepdims=True), MASKED_SCORE)
  can_improve = state.can_improve & (best_possible > worst).any(axis=1)
  unfinished = can_improve.any() & ~ends_text.all()
  if early_stopping is True:
    unfinished &= ~finished.all()
  return Beams(
    step, text[kept_rows], valid[kept_rows], scores, ended, ended_scores, finished, can_improve, unfinished,
    state.position + 1, _reordered(state.model, from_rows),
  )  # fmt: skip


def _reordered(state, rows):
  """Reorders caches by beam."""
  return _each_row(lambda array: array[rows], state)


def _each_row(change, state):
  """Changes all arrays with a row for each beam; the encoded source, and what is cached of it, has one for a prompt."""

  def row(path, array):
    names = [getattr(part, "key", "") for part in path]
    shared = not array.ndim or names[-1].startswith("context_") or names[0] in ("encoded", "valid")
    return array if shared else change(array)

  return jax.tree_util.tree_map_with_path(row, state)


def search(
  model, params, source, settings, *, new, num_beams, length_penalty, num_return, early_stopping, ends, return_scores
):
  """The result of `generate` by beam search; `new`: number of new tokens, static even if settings.steps is traced."""
  static = {"room": source.room, "beams": num_beams, "early_stopping": early_stopping, "ends": ends}
  reads, (loop, layers) = prepared(model, params)
  state = begin(*reads, source.inputs, settings, jnp.float32(length_penalty), **static)
  state = advance(loop, layers, state, settings, jnp.float32(length_penalty), **static)
  count = num_return or 1
  new = state.ended[:, :count, :new]
  prompt = jnp.broadcast_to(source.prompt[:, None], (*new.shape[:2], source.prompt.shape[1]))
  results = [jnp.concatenate([prompt, new], axis=2), state.ended_scores[:, :count]]
  results = results if num_return is not None else [array[:, 0] for array in results]
  return tuple(results) if return_scores else results[0]
