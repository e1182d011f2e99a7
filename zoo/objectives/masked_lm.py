"""Masked language modelling loss (https://arxiv.org/abs/1810.04805, section 3.1)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from zoo.errors import UserError
from zoo.objectives.masking import mask_tokens, row_keys
from zoo.objectives.objective import (
  NOTHING,
  REGIONS,
  Batch,
  Context,
  Objective,
  apply_with_carry,
  check_batch,
  init_and_carry,
  optional_entries,
  output,
  ratio,
  row_weight,
)
from zoo.objectives.tokens import check_chunk, in_chunks, likelihood


def masked_lm(
  model: Any,
  *,
  mask_token: int,
  vocab_size: int | None = None,
  special_tokens: Sequence[int] = (),
  rate: float = 0.15,
  mask_rate: float = 0.8,
  random_rate: float = 0.1,
  whole_word: bool = False,
  max_predictions: int | None = None,
  eval_seed: int = 0,
  chunk: int | None = None,
  by_row: NamedSharding | None = None,
) -> Objective:
  """Masked-token cross entropy: the mean of -log p(token) over the chosen tokens.

  A share `rate` of each row is chosen; of these 80 % are masked, 10 % random, 10 % unchanged. Logits are computed only
  at the chosen positions, whose number depends on the length alone: a seventh of BERT's largest product.

  Args:
    model: (tokens, segments=, valid=, segment_ids=, predict=, train=) -> {"mlm" [batch, chosen, vocab_size]}.
    mask_token: id of [MASK].
    vocab_size: number of tokens that a random one is drawn from; by default the model's.
    special_tokens: ids that are never chosen, besides `mask_token` and those that are `special` in the batch.
    rate: share of a row's candidates that is chosen, rounded, at least one token.
    mask_rate: share of the chosen tokens that become `mask_token`.
    random_rate: share of them that become a random token of the vocabulary.
    whole_word: chooses words, not tokens; the batch then needs word_start.
    max_predictions: maximum number of tokens chosen in a row; by default ceil(rate * length).
    eval_seed: without an rng a row's masking is a function of its tokens and this seed.
    chunk: number of chosen tokens, over all devices, whose logits are in memory at a time; None: all.
    by_row: sharding of rows, for chunks; None: XLA decides.

  Batch: tokens int32 [batch, length]; optionally segments, valid, special, word_start, segment_ids [batch, length],
  weight [batch]; for models that read images beside words their regions, float [batch, regions, features], and
  regions_valid, region_segments, alignment as of `zoo.models.visual_bert`.
  Metrics: loss (nats per chosen token), accuracy, perplexity.

  Raises:
    UserError: whole_word is set, and the batch has no `word_start`.

  >>> import zoo
  >>> model = zoo.build("bert", vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  >>> objective = masked_lm(model, mask_token=3, rate=0.25)
  >>> batch = {"tokens": jnp.array([[4, 5, 6, 4, 5, 6, 4, 5]])}
  >>> masked = objective.prepare(batch, jax.random.key(1))
  >>> int((masked["inputs"] != batch["tokens"]).sum()) <= 2  # 25 % of 8; some may keep their token
  True
  >>> params = objective.init(jax.random.key(0), batch)
  >>> loss, metrics = objective.loss(params, batch)
  >>> loss.shape, sorted(metrics)
  ((), ['accuracy', 'loss', 'perplexity'])
  """
  check_rates(rate, mask_rate, random_rate)
  vocab_size = vocab_size or vocabulary(model)
  trunk, terms = mlm_terms(model, "masked_lm", chunk, by_row)

  def arguments(batch: dict) -> tuple[list, dict]:
    check_batch(batch, "masked_lm", "tokens", *(["word_start"] if whole_word else []))
    return [batch["tokens"]], optional_entries(batch, "segments", "valid", "segment_ids", *REGIONS)

  def prepare(batch: dict, rng: jax.Array | None = None) -> dict:
    if whole_word and "word_start" not in batch:
      raise UserError(
        "masked_lm.whole_word needs word_start in the batch. Choose data that have it, or set objective.whole_word "
        "to False."
      )
    tokens = batch["tokens"]
    rows, length = tokens.shape
    slots = min(max_predictions or math.ceil(rate * length), length)
    candidates = tokens != mask_token
    for token in special_tokens:
      candidates &= tokens != token
    if "valid" in batch:
      candidates &= batch["valid"]
    if "special" in batch:
      candidates &= ~batch["special"]
    train = rng is not None
    keys = jax.random.split(jax.random.fold_in(rng, 1), rows) if train else row_keys(jax.random.key(eval_seed), tokens)
    starts = batch["word_start"] if whole_word else None
    sizes = {"slots": slots, "rate": rate, "mask_rate": mask_rate, "random_rate": random_rate}
    masked = mask_tokens(tokens, candidates, starts, keys, mask_token=mask_token, vocab_size=vocab_size, **sizes)
    return {**batch, **masked}

  def forward(params: Any, batch: dict, rng: jax.Array | None = None, context: Context = NOTHING) -> dict:
    batch = batch if "predict" in batch else prepare(batch, rng)
    options: dict = optional_entries(batch, "segments", "valid", "segment_ids", "predict", *REGIONS)
    outputs, carried, _ = apply_with_carry(context, trunk, params, batch["inputs"], rng=rng, **options)
    return {**terms(params, outputs, batch), **carried}

  init, carry = init_and_carry(model, arguments)
  return Objective(init, forward, mlm_reduce, prepare, carry=carry)


def mlm_terms(model: Any, what: str, chunk: int | None, by_row: NamedSharding | None) -> tuple[Any, Callable]:
  """-> the model to apply, and f(params, its outputs, the prepared batch) -> sums over the chosen tokens of each row.

  The sums are nll, correct, count, each float32 [batch]; chunk and by_row as in `masked_lm`, for the objective `what`.
  """
  check_chunk(model, what, chunk)

  def terms(params: Any, outputs: dict, batch: Batch) -> dict:
    target = batch["target"]
    counts = batch["chosen"] * row_weight(batch, len(target))[:, None]
    if chunk is None:
      logits = output(outputs, "mlm", "masked_lm", "Set the model's head to 'mlm' or 'pretraining'.")
      sums = likelihood(logits, target, counts)
    else:
      # By vmap the batch stays a batch: see `zoo.layers.embeddings.pick`.
      x = jax.vmap(lambda rows, at: rows[at])(outputs["hidden"], batch["predict"])
      sums = in_chunks(likelihood, model, params, x, target, counts, chunk, by_row)
    return {**sums, "count": counts.sum(-1)}

  return model if chunk is None else model.trunk(), terms


def mlm_reduce(outputs: dict) -> tuple[jax.Array, dict]:
  """Loss, a float32 scalar, and metrics: means over all masked tokens of the batch.

  outputs: nll, correct and count, float32 [batch]: sums over the masked tokens of each row, and their number.
  """
  loss = ratio(outputs["nll"], outputs["count"])
  accuracy = ratio(outputs["correct"], outputs["count"])
  return loss, {"loss": loss, "accuracy": accuracy, "perplexity": jnp.exp(loss)}


def vocabulary(model: Any) -> int:
  """The size of a model's output vocabulary, from shapes alone."""

  def logits(rng: jax.Array) -> jax.Array:
    outputs, _ = model.init_with_output(rng, *model.example())
    return output(outputs, "mlm", "masked_lm", "Set the model's head to 'mlm' or 'pretraining'.")

  return jax.eval_shape(logits, jax.random.key(0)).shape[-1]


def check_rates(rate: float, mask_rate: float, random_rate: float) -> None:
  """UserError for rates outside [0, 1], or whose sum is above 1."""
  for name, value in (("rate", rate), ("mask_rate", mask_rate), ("random_rate", random_rate)):
    if not 0 <= value <= 1:
      raise UserError(f"masked_lm.{name} is {value}. It must be from 0 to 1.")
  if mask_rate + random_rate > 1:
    raise UserError(
      f"masked_lm: mask_rate {mask_rate} and random_rate {random_rate} add up to more than 1. Lower one of them."
    )
