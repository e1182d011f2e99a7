"""Permutation language modelling: XLNet's loss. https://arxiv.org/abs/1906.08237, sections 2.2 and 2.3"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from zoo.errors import UserError
from zoo.objectives.masked_lm import mlm_reduce
from zoo.objectives.masking import choose_words, row_keys
from zoo.objectives.memory import continuing
from zoo.objectives.objective import (
  NOTHING,
  Context,
  Objective,
  apply_with_carry,
  check_batch,
  init_and_carry,
  optional_entries,
  output,
  row_weight,
)
from zoo.objectives.tokens import check_chunk, in_chunks, likelihood


def permutation_lm(
  model: Any,
  *,
  rate: float = 1 / 6,
  longest_span: int = 5,
  special_tokens: Sequence[int] = (),
  eval_seed: int = 0,
  chunk: int | None = None,
  by_row: NamedSharding | None = None,
) -> Objective:
  """Cross entropy of tokens in a random order: the mean of -log p(token | those before it in the order).

  The last tokens of the order are predicted, a share `rate` of each row, which lie there in spans. All others come
  before them: each is predicted by these, and by the predicted ones whose turn is earlier.

  Args:
    model: (tokens, valid=, segments=, sees=, predict=, train=) -> {"mlm" [batch, predicted, vocab_size]}: an xlnet.
    rate: share of a row's candidates that is predicted, rounded, at least one token.
    longest_span: spans are 1 to so many tokens long, each length as often as another.
    special_tokens: ids that are never predicted, besides those that are `special` in the batch.
    eval_seed: without an rng a row's order is a function of its tokens and this seed.
    chunk: number of predicted tokens, over all devices, whose logits are in memory at a time; None: all.
    by_row: sharding of rows, for chunks; None: XLA decides.

  Batch: tokens int32 [batch, length]; optionally valid, segments, special [batch, length], weight [batch], and
  continues bool [batch], with which the memory of a model is carried (`zoo.data.contiguous`).
  Metrics: loss (nats per predicted token), accuracy, perplexity.

  Raises:
    UserError: a rate that is no share, a span without length, a model of another kind.

  >>> import zoo
  >>> model = zoo.build("xlnet", vocab_size=7, dim=8, depth=1, num_heads=2)
  >>> objective = permutation_lm(model, rate=0.25)
  >>> batch = {"tokens": jnp.array([[4, 5, 6, 4, 5, 6, 4, 5]])}
  >>> prepared = objective.prepare(batch, jax.random.key(1))
  >>> prepared["predict"].shape, prepared["sees"].shape
  ((1, 2), (1, 8, 8))
  >>> params = objective.init(jax.random.key(0), batch)
  >>> loss, metrics = objective.loss(params, batch)
  >>> loss.shape, sorted(metrics)
  ((), ['accuracy', 'loss', 'perplexity'])
  """
  if not 0 < rate <= 1:
    raise UserError(f"permutation_lm.rate is {rate}. It must be above 0, at most 1.")
  if longest_span < 1:
    raise UserError(f"permutation_lm.longest_span is {longest_span}. It must be at least 1.")
  check_chunk(model, "permutation_lm", chunk)
  trunk = model if chunk is None else model.trunk()

  def arguments(batch: dict) -> tuple[list, dict]:
    check_batch(batch, "permutation_lm", "tokens")
    return [batch["tokens"]], optional_entries(batch, "segments", "valid")

  def prepare(batch: dict, rng: jax.Array | None = None) -> dict:
    tokens = batch["tokens"]
    candidates = batch.get("valid", jnp.ones(tokens.shape, bool)).astype(bool)
    for token in special_tokens:
      candidates &= tokens != token
    if "special" in batch:
      candidates &= ~batch["special"]
    rows, length = tokens.shape
    train = rng is not None
    keys = jax.random.split(jax.random.fold_in(rng, 1), rows) if train else row_keys(jax.random.key(eval_seed), tokens)
    row = lambda key, candidates: drawn_order(key, candidates, rate, math.ceil(rate * length), longest_span)
    order = jax.vmap(row)(keys, candidates)
    return {**batch, **order, "target": jnp.take_along_axis(tokens, order["predict"], axis=1)}

  def forward(params: Any, batch: dict, rng: jax.Array | None = None, context: Context = NOTHING) -> dict:
    batch = batch if "predict" in batch else prepare(batch, rng)
    options: dict = optional_entries(batch, "segments", "valid", "sees", "predict")
    context = continuing(context, batch)
    outputs, carried, _ = apply_with_carry(context, trunk, params, batch["tokens"], rng=rng, **options)
    counts = batch["chosen"] * row_weight(batch, len(batch["tokens"]))[:, None]
    if chunk is None:
      logits = output(outputs, "mlm", "permutation_lm", "Set the model's head to 'mlm'.")
      sums = likelihood(logits, batch["target"], counts)
    else:
      sums = in_chunks(likelihood, model, params, outputs["hidden"], batch["target"], counts, chunk, by_row)
    return {**sums, "count": counts.sum(-1), **carried}

  init, carry = init_and_carry(model, arguments)
  return Objective(init, forward, mlm_reduce, prepare, carry=carry)


def drawn_order(
  key: jax.Array, candidates: jax.Array, rate: float, slots: int, longest_span: int
) -> dict[str, jax.Array]:
  """A random order of a row's tokens: which are predicted, and which each of them sees.

  Args:
    candidates: bool [length], tokens that may be predicted.
    rate, longest_span: as of `permutation_lm`.
    slots: most tokens to predict.

  Returns:
    predict int32 [slots], positions; chosen float32 [slots], 0 for unused slots; sees bool [length, length]
  """
  length = len(candidates)
  of_spans, of_words, of_turns = jax.random.split(key, 3)
  ends = jnp.cumsum(jax.random.randint(of_spans, (length,), 1, longest_span + 1))
  starts = jnp.zeros(length, bool).at[0].set(True).at[ends].set(True, mode="drop")
  count = candidates.sum()
  budget = jnp.where(count > 0, jnp.clip(jnp.round(rate * count), 1, slots), 0).astype(jnp.int32)
  predict, chosen = choose_words(of_words, candidates, starts, budget, slots)
  # Tokens that are not predicted are the first, in no order: all see them.
  turn = jnp.zeros(length, jnp.int32).at[predict].set(jnp.where(chosen, 1 + jax.random.permutation(of_turns, slots), 0))
  sees = (turn == 0)[None] | (turn[:, None] > turn[None])
  return {"predict": predict, "chosen": chosen.astype(jnp.float32), "sees": sees}
