"""`generate`: checks and buckets its inputs, and runs two compiled programs, `begin` and `advance`.

Both are shared by all prompts of a bucket. `advance` runs to the end in one call, or once per token when streaming.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from zoo.generate import beams, checks, rules
from zoo.generate.prepared import prepared
from zoo.generate.prompts import Settings, Source, end_tokens
from zoo.generate.sampling import likeliest, sample
from zoo.generate.starts import first_tokens
from zoo.generate.steps import decode_step, prefill, right_aligned, stopped, with_caches_for
from zoo.layers.stack import unstack_layers


def generate(
  model: Any,
  params: Any,
  tokens: Any,
  *,
  max_new_tokens: int | None = None,
  temperature: float = 0.0,
  top_k: int | None = None,
  top_p: float | None = None,
  min_p: float | None = None,
  eos: int | Sequence[int] | None = None,
  stop: Sequence[Sequence[int]] = (),
  pad: int | None = None,
  rng: Any = None,
  valid: Any = None,
  decoder_tokens: Any = None,
  decoder_valid: Any = None,
  start_token: int | Sequence[int | Sequence[int]] | None = None,
  num_beams: int = 1,
  length_penalty: float = 1.0,
  early_stopping: bool | str = False,
  num_return: int | None = None,
  cache_dtype: str | None = None,
  stream: Callable | None = None,
  return_scores: bool = False,
  **constraints: Unpack[rules.Constraints],
) -> Any:
  """Generates up to max_new_tokens tokens after each prompt; with an encoder-decoder, for each source.

  Args:
    model: a decoder or an encoder-decoder, e.g. `zoo.build("gpt", "gpt2")` or `zoo.build("t5", "t5-small")`.
    params: its parameters; may be sharded over a mesh.
    tokens: int [batch, prompt length]; prompts of different lengths are padded, left or right, with `valid` set. For an
      encoder-decoder the source; for a Whisper float [batch, frames, mels].
    max_new_tokens: maximum number of new tokens; None: 100, or as many as the model's max_length leaves.
    temperature: 0: greedy; above 0: samples from softmax(logits / temperature).
    top_k: samples among the k most likely tokens.
    top_p: nucleus sampling: the fewest tokens whose probabilities sum to this. https://arxiv.org/abs/1904.09751
    min_p: drops tokens below this fraction of the largest probability. https://arxiv.org/abs/2407.01082
    eos: the end-of-sequence token, or several.
    stop: sequences of tokens that also end a sequence.
    pad: fills a row after its end; the first eos if None.
    rng: a `jax.random.key`, if temperature is above 0.
    valid: bool [batch, prompt length], True = a real token; all are if None. Of a Whisper, bool [batch, frames / 2].
    decoder_tokens: int [batch, length], the decoder's prompt of an encoder-decoder; start_token if None.
    decoder_valid: bool [batch, length], of decoder_tokens.
    start_token: the decoder's first token, or several; a list among them means the most likely of its tokens. The
      model's own if None.
    num_beams: above 1: beam search with this many beams, which returns those with the largest sum of log-probabilities.
    length_penalty: that sum is divided by length ** length_penalty.
    early_stopping: beam search ends once num_beams sequences have ended (True); or once the best running beam scores
      worse than they do, at its current length (False) or at its maximum ("never").
    num_return: how many of the beams to return for each prompt; None: the best, without an axis for it.
    cache_dtype: dtype of cached keys and values, "bfloat16" or "int8"; the computation dtype if None.
    stream: called with the tokens of each step, int32 [batch], as soon as they are computed.
    return_scores: whether to return also the log-probability of each new token, before temperature, top_k, top_p and
      min_p, but after the constraints; with beam search the score of each sequence.
    constraints: changes of the logits before a token is chosen: repetition_penalty, no_repeat_ngram, min_new_tokens,
      suppress, suppress_first, forced, more_rules; see `zoo.generate.rules.Constraints`.

  Returns:
    int32 [batch, prompt length + max_new_tokens]: the prompts (with an encoder-decoder, decoder_tokens), then the
    generated tokens; with num_return int32 [batch, num_return, ...]. With return_scores also scores, float32 [batch,
    max_new_tokens], 0 after the end; of beam search [batch] or [batch, num_return].

  Raises:
    UserError: the model does not decode, or an argument is out of its range.
    TypeError: a keyword that does not exist.

  >>> import zoo
  >>> model = zoo.build("gpt", vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  >>> prompt = jnp.array([[1, 2, 3]])
  >>> params = model.init(jax.random.key(0), prompt)["params"]
  >>> zoo.generate(model, params, prompt, max_new_tokens=4).shape
  (1, 7)
  """
  checks.cache_dtype_is_known(cache_dtype)
  encoded = None
  if decoder_tokens is None and start_token is not None:
    checks.decodes(model)
    decoder_tokens, encoded = first_tokens(model, params, tokens, valid, start_token)
  max_new_tokens = checks.new_tokens(model, tokens, decoder_tokens) if max_new_tokens is None else max_new_tokens
  source = Source.of(model, tokens, valid, decoder_tokens, decoder_valid, max_new_tokens)
  if encoded is not None and source.inputs["tokens"].shape == jnp.shape(tokens):  # Not padded: sounds.
    source = source._replace(inputs={**source.inputs, "encoded": encoded})
  checks.numbers(
    temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, rng=rng,
    length_penalty=length_penalty,
  )  # fmt: skip
  checks.constraints_fit(model, constraints)
  checks.beams_fit(
    model, num_beams=num_beams, num_return=num_return, early_stopping=early_stopping, temperature=temperature,
    stream=stream, return_scores=return_scores,
  )  # fmt: skip
  settings = Settings.of(
    model, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, min_p=min_p, eos=eos, stop=stop,
    pad=pad, rng=rng, constraints=constraints,
  )  # fmt: skip
  model = with_caches_for(model, source.columns, cache_dtype)
  if num_beams > 1:
    return beams.search(
      model, params, source, settings, new=max_new_tokens, num_beams=num_beams, length_penalty=length_penalty,
      num_return=num_return, early_stopping=early_stopping, ends=len(end_tokens(eos)), return_scores=return_scores,
    )  # fmt: skip
  static = {"top_k": None if top_k is None else min(top_k, model.vocab_size), "greedy": temperature == 0}
  static |= {"room": source.room, "scoring": return_scores}
  reads, (loop, layers) = prepared(model, params)
  state = begin(*reads, source.inputs, settings, **static)
  if stream is None:
    state = advance(loop, layers, state, settings, settings.steps, **static)
  else:
    stream(np.asarray(state.token))
    for step in range(1, max_new_tokens):
      if bool(state.done.all()):
        break
      state = advance(loop, layers, state, settings, jnp.int32(step + 1), **static)
      stream(np.asarray(state.token))
  new = state.text[:, -source.room :][:, :max_new_tokens]
  sequences, scores = jnp.concatenate([source.prompt, new], axis=1), state.scores
  if num_return is not None:
    sequences, scores = sequences[:, None], None if scores is None else scores[:, None]
  return (sequences, scores[..., :max_new_tokens]) if scores is not None else sequences


class State(NamedTuple):
  """State of the decoding loop between two tokens.

  step: int32, number of generated tokens.
  token, position: int32 [batch], the newest token and its position.
  done: bool [batch], which sequences have ended.
  text: int32 [batch, columns]: the right-aligned prompt, then `room` columns for new tokens.
  valid: bool [batch, columns], which are real.
  scores: float32 [batch, room], or None.
  model: the state of `prefill`.
  """

  step: jax.Array
  token: jax.Array
  position: jax.Array
  done: jax.Array
  text: jax.Array
  valid: jax.Array
  scores: jax.Array | None
  model: Any


STATIC = ("model", "room", "top_k", "greedy", "scoring")


@functools.partial(jax.jit, static_argnames=STATIC)
def begin(model, params, inputs, settings, *, room, top_k, greedy, scoring):
  """Prefill: reads the prompt and chooses the first token. Compiled once per model, shapes and keywords."""
  logits, position, state = prefill(model, params, **inputs, room=room)
  text, valid = right_aligned(inputs, room)
  rows = text.shape[0]
  state = State(
    step=jnp.int32(0),
    token=jnp.zeros(rows, jnp.int32),
    position=position - 1,
    done=jnp.zeros(rows, bool),
    text=jnp.where(valid, text, settings.pad),
    valid=valid,
    scores=jnp.zeros((rows, room), jnp.float32) if scoring else None,
    model=unstack_layers(state),
  )
  return _chosen(state, logits, settings, room, top_k, greedy)


@functools.partial(jax.jit, static_argnames=STATIC, donate_argnames="state")
def advance(model, params, state, settings, until, *, room, top_k, greedy, scoring):
  """Decodes up to step `until`, or until every sequence has ended. Compiled once per model, shapes and keywords."""

  def unfinished(state):
    return (state.step < jnp.minimum(until, settings.steps)) & ~state.done.all()

  def step(state):
    logits, inner = decode_step(model, params, state.model, state.token, state.position)
    return _chosen(state._replace(model=inner), logits, settings, room, top_k, greedy)

  return jax.lax.while_loop(unfinished, step, state)


def _chosen(state, logits, settings, room, top_k, greedy):
  """The state after choosing the next token."""
  logits = rules.apply(settings.rules, logits, text_so_far(state, settings, room))
  if greedy:
    token = likeliest(logits)
  else:
    key = jax.random.fold_in(settings.rng, state.step)
    token = sample(key, logits, settings.temperature, top_k, settings.top_p, settings.min_p)
  scores = state.scores
  if scores is not None:
    score = jnp.take_along_axis(jax.nn.log_softmax(logits), token[:, None], axis=1)
    scores = jax.lax.dynamic_update_slice(scores, jnp.where(state.done[:, None], 0.0, score), (0, state.step))
  token = jnp.where(state.done, settings.pad, token)
  end = state.text.shape[1] - room + state.step
  text = jax.lax.dynamic_update_slice(state.text, token[:, None], (0, end))
  valid = jax.lax.dynamic_update_slice(state.valid, ~state.done[:, None], (0, end))
  done = state.done | (token[:, None] == settings.ends[None]).any(axis=1) | stopped(text, valid, end, settings.stop)
  return State(state.step + 1, token, state.position + 1, done, text, valid, scores, state.model)


def text_so_far(state, settings, room):
  """The argument `text` of rules."""
  return rules.Text(state.text, state.valid, state.text.shape[1] - room + state.step, state.step, settings.steps)
