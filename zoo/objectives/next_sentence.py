"""Next-sentence prediction: does the second text follow the first? (https://arxiv.org/abs/1810.04805, section 3.1)"""

from typing import Any

import jax
import optax

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


def next_sentence(model: Any) -> Objective:
  """Next-sentence cross entropy: the mean of -log p(is_random). For BERT's pretraining see `bert_pretraining`.

  Args:
    model: (tokens, segments=, valid=, train=) -> {"nsp" [batch, 2]}.

  Batch: tokens int32 [batch, length]; is_random int32 [batch], 0 = the second text follows, 1 = it comes from
  elsewhere; optionally segments, valid, weight. Metrics: loss, accuracy.

  >>> import jax.numpy as jnp
  >>> import zoo
  >>> model = zoo.build("bert", vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  >>> objective = next_sentence(model)
  >>> batch = {"tokens": jnp.ones((2, 5), int), "is_random": jnp.array([0, 1])}
  >>> params = objective.init(jax.random.key(0), batch)
  >>> loss, metrics = objective.loss(params, batch)
  >>> loss.shape, sorted(metrics)
  ((), ['accuracy', 'loss'])
  """

  def arguments(batch: dict) -> tuple[list, dict]:
    check_batch(batch, "next_sentence", "tokens", "is_random")
    return [batch["tokens"]], optional_entries(batch, "segments", "valid", *REGIONS)

  def forward(params: Any, batch: dict, rng: jax.Array | None = None, context: Context = NOTHING) -> dict:
    inputs, options = arguments(batch)
    outputs, carried, _ = apply_with_carry(context, model, params, *inputs, rng=rng, **options)
    return {**nsp_terms(outputs, batch), **carried}

  def reduce(outputs: dict) -> tuple[jax.Array, dict]:
    loss = ratio(outputs["nsp_nll"], outputs["nsp_count"])
    return loss, {"loss": loss, "accuracy": ratio(outputs["nsp_correct"], outputs["nsp_count"])}

  init, carry = init_and_carry(model, arguments)
  return Objective(init, forward, reduce, carry=carry)


def nsp_terms(outputs: dict, batch: Batch) -> dict:
  """Sums per row: nsp_nll, nsp_correct, nsp_count, each float32 [batch]."""
  logits = output(outputs, "nsp", "next_sentence", "Set the model's head to 'pretraining'.")
  label = batch["is_random"]
  weight = row_weight(batch, len(logits))
  nll = optax.softmax_cross_entropy_with_integer_labels(logits, label)
  return {"nsp_nll": nll * weight, "nsp_correct": (logits.argmax(-1) == label) * weight, "nsp_count": weight}
