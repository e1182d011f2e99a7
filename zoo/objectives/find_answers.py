"""Extractive question answering loss: start and end of the answer (https://arxiv.org/abs/1810.04805, section 4.2)."""

from typing import Any

import jax
import jax.numpy as jnp

from zoo.objectives.classify import options
from zoo.objectives.objective import (
  NOTHING,
  Context,
  Objective,
  apply_with_carry,
  check_batch,
  init_and_carry,
  output,
  ratio,
  row_weight,
)
from zoo.objectives.tokens import likelihood


def find_answers(model: Any) -> Objective:
  """Cross entropy of answer spans: the mean of (-log p(start) - log p(end)) / 2, each a softmax over a row's tokens.

  Args:
    model: (tokens, segments=, valid=, train=) -> {"start", "end" [batch, length]}.

  Batch: tokens int32 [batch, length]; start, end int32 [batch], the first and the last token of the answer, both 0
  if the row has none; optionally valid, segments [batch, length] and weight [batch]. Metrics: loss, accuracy (rows
  where both are the likeliest).

  >>> import zoo
  >>> sizes = dict(vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  >>> objective = find_answers(zoo.build("bert", **sizes, head="question_answering"))
  >>> batch = {"tokens": jnp.array([[4, 5, 6, 2]]), "start": jnp.array([1]), "end": jnp.array([2])}
  >>> params = objective.init(jax.random.key(0), batch)
  >>> loss, metrics = objective.loss(params, batch)
  >>> loss.shape, sorted(metrics)
  ((), ['accuracy', 'loss'])
  """

  def arguments(batch: dict) -> tuple[list, dict]:
    check_batch(batch, "find_answers", "tokens", "start", "end")
    return [batch["tokens"]], options(batch, model)

  def forward(params: Any, batch: dict, rng: jax.Array | None = None, context: Context = NOTHING) -> dict:
    outputs, carried, _ = apply_with_carry(context, model, params, batch["tokens"], rng=rng, **options(batch, model))
    weight = row_weight(batch, len(batch["tokens"]))
    ends = []
    for name in ("start", "end"):
      logits = output(outputs, name, "find_answers", "Build it with head='question_answering'.")
      sums = likelihood(logits[:, None], batch[name][:, None], weight[:, None])
      is_token = (batch[name] >= 0) & (batch[name] < logits.shape[-1]) | (weight == 0)
      ends.append({"nll": jnp.where(is_token, sums["nll"], jnp.nan), "correct": sums["correct"]})
    start, end = ends
    correct = jnp.minimum(start["correct"], end["correct"])
    return {"nll": (start["nll"] + end["nll"]) / 2, "correct": correct, "weight": weight, **carried}

  def reduce(outputs: dict) -> tuple[jax.Array, dict]:
    loss, accuracy = (ratio(outputs[name], outputs["weight"]) for name in ("nll", "correct"))
    return loss, {"loss": loss, "accuracy": accuracy}

  init, carry = init_and_carry(model, arguments)
  return Objective(init, forward, reduce, carry=carry)
