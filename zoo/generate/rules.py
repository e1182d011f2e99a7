"""Logits processors. A rule is a NamedTuple of arrays that is called as rule(logits, text).

Rules are values: `generate` builds them from its keywords, and takes others as `more_rules=`. Rules that
transformers has too are equal to those of `transformers.generation.logits_process`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypedDict

import jax
import jax.numpy as jnp


class Constraints(TypedDict, total=False):
  """Keywords of `generate` for logits processors.

  repetition_penalty: divides the logits of tokens that occur in the text (multiplies those below 0).
  no_repeat_ngram: int, no n-gram of this length occurs twice; 0 or None: no limit.
  min_new_tokens: int, no eos before so many new tokens.
  suppress, suppress_first: tokens that are never chosen; that are not chosen at the first step that is not forced.
  forced: {step: token}, chosen regardless of logits; step 0 is the first new token, -1 the last.
  more_rules: rules applied after those of the other keywords.
  """

  repetition_penalty: float | None
  no_repeat_ngram: int | None
  min_new_tokens: int
  suppress: Sequence[int]
  suppress_first: Sequence[int]
  forced: Mapping[int, int] | None
  more_rules: Sequence[Callable]


class Text(NamedTuple):
  """The text so far: prompt and generated tokens.

  tokens: int32 [batch, columns]: the prompt, which ends at column `columns - room`, and the generated tokens.
  valid: bool [batch, columns], True = a real token; contiguous in each row, up to `end`.
  end: int32, the column of the next token.
  step: int32, number of generated tokens. steps: int32, the maximum.
  """

  tokens: jax.Array
  valid: jax.Array
  end: jax.Array
  step: jax.Array
  steps: jax.Array


class RepetitionPenalty(NamedTuple):
  """Divides logits of tokens that occur in the text by `penalty` if above 0, else multiplies them.

  Section 4.1 of https://arxiv.org/abs/1909.05858.
  """

  penalty: jax.Array

  def __call__(self, logits, text):
    """float32 logits [batch, vocab_size] -> the same shape"""
    rows = jnp.arange(logits.shape[0])[:, None]
    occurs = jnp.zeros(logits.shape, bool).at[rows, text.tokens].max(text.valid)
    return jnp.where(occurs, jnp.where(logits > 0, logits / self.penalty, logits * self.penalty), logits)


class NoRepeatNgram(NamedTuple):
  """Suppresses tokens that would repeat an n-gram.

  back: int32 [n - 1]: n - 1, ..., 2, 1.
  """

  back: jax.Array

  def __call__(self, logits, text):
    """float32 logits [batch, vocab_size] -> the same shape"""
    count, columns = self.back.shape[0], text.tokens.shape[1]
    before = jnp.maximum(text.end - self.back, 0)
    ending = text.tokens[:, before]  # [batch, n - 1]
    real = text.valid[:, before].all(axis=1) & (text.end >= count)
    last = jnp.arange(count, columns)
    repeats = text.valid[:, last] & real[:, None]
    for i in range(count):
      column = last - count + i
      repeats &= (text.tokens[:, column] == ending[:, i : i + 1]) & text.valid[:, column]
    rows = jnp.arange(logits.shape[0])[:, None]
    banned = jnp.zeros(logits.shape, bool).at[rows, text.tokens[:, last]].max(repeats)
    return jnp.where(banned, -jnp.inf, logits)


class MinNewTokens(NamedTuple):
  """Suppresses the tokens `ends`, int32 [k], before `minimum` tokens were generated."""

  minimum: jax.Array
  ends: jax.Array

  def __call__(self, logits, text):
    """float32 logits [batch, vocab_size] -> the same shape"""
    return jnp.where(text.step < self.minimum, logits.at[:, self.ends].set(-jnp.inf), logits)


class Suppress(NamedTuple):
  """Suppresses `tokens`, int32 [k], at every step."""

  tokens: jax.Array

  def __call__(self, logits, text):
    """float32 logits [batch, vocab_size] -> the same shape"""
    return logits.at[:, self.tokens].set(-jnp.inf)


class SuppressFirst(NamedTuple):
  """Suppresses `tokens`, int32 [k], at `step`, the first step that is not forced."""

  tokens: jax.Array
  step: jax.Array

  def __call__(self, logits, text):
    """float32 logits [batch, vocab_size] -> the same shape"""
    return jnp.where(text.step == self.step, logits.at[:, self.tokens].set(-jnp.inf), logits)


class Forced(NamedTuple):
  """Forces tokens[i] at step steps[i]; both int32 [k]. A negative step counts from the end: -1 is the last.

  If several fall on one step the last wins: with one new token, forced bos and eos coincide.
  """

  steps: jax.Array
  tokens: jax.Array

  def __call__(self, logits, text):
    """float32 logits [batch, vocab_size] -> the same shape"""
    is_forced = jnp.where(self.steps < 0, self.steps + text.steps, self.steps) == text.step
    token = self.tokens[len(is_forced) - 1 - jnp.argmax(is_forced[::-1])]
    only = jnp.where(jnp.arange(logits.shape[-1]) == token, 0.0, -jnp.inf)[None]
    return jnp.where(is_forced.any(), only, logits)


def from_keywords(
  *,
  repetition_penalty=None,
  no_repeat_ngram=None,
  min_new_tokens=0,
  ends=(),
  suppress=(),
  suppress_first=(),
  forced=None,
  more_rules=(),
):
  """The rules of `Constraints`, in the order in which transformers applies them; ends: the end-of-text tokens."""
  ints = lambda values: jnp.asarray(list(values), jnp.int32)
  rules = []
  if repetition_penalty not in (None, 1):
    rules.append(RepetitionPenalty(jnp.float32(repetition_penalty)))
  if no_repeat_ngram:
    rules.append(NoRepeatNgram(jnp.arange(no_repeat_ngram - 1, 0, -1)))
  if min_new_tokens and len(ends):
    rules.append(MinNewTokens(jnp.int32(min_new_tokens), ints(ends)))
  if forced:
    rules.append(Forced(ints(forced), ints(forced.values())))
  if len(suppress):
    rules.append(Suppress(ints(suppress)))
  if len(suppress_first):
    first = next(step for step in range(len(forced or ()) + 1) if step not in (forced or ()))
    rules.append(SuppressFirst(ints(suppress_first), jnp.int32(first)))
  return (*rules, *more_rules)


def apply(rules, logits, text):
  """Applies all rules in order; float32 [batch, vocab_size] -> the same"""
  for rule in rules:
    logits = rule(logits, text)
  return logits
