"""Next-sentence prediction: did the second text follow the first? (https://arxiv.org/abs/1810.04805, section 3.1)"""

from typing import Any

import jax
import optax

from zoo.objectives.objective import (
  NOTHING,
  Batch,
  Context,
  Objective,
  apply_in,
  check_batch,
  output,
  present,
  ratio,
  row_weight,
  starts_with,
)


def next_sentence(model: Any) -> Objective:
  """Mean of -log p(is_random). Alone it is a loss for pairs of texts; BERT's pretraining is `bert_pretraining`.

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
    return [batch["tokens"]], present(batch, "segments", "valid")

  def forward(params: Any, batch: dict, rng: jax.Array | None = None, context: Context = NOTHING) -> dict:
    inputs, options = arguments(batch)
    outputs, carried, _ = apply_in(context, model, params, *inputs, rng=rng, **options)
    return {**verdicts(outputs, batch), **carried}

  def reduce(outputs: dict) -> tuple[jax.Array, dict]:
    loss = ratio(outputs["nsp_nll"], outputs["nsp_count"])
    return loss, {"loss": loss, "accuracy": ratio(outputs["nsp_correct"], outputs["nsp_count"])}

  init, carry = starts_with(model, arguments)
  return Objective(init, forward, reduce, carry=carry)


def verdicts(found: dict, batch: Batch) -> dict:
  """nsp_nll, nsp_correct, nsp_count, each float32 [batch]."""
  logits = output(found, "nsp", "next_sentence", "Set the model's head to 'pretraining'.")
  label = batch["is_random"]
  weight = row_weight(batch, len(logits))
  nll = optax.softmax_cross_entropy_with_integer_labels(logits, label)
  return {"nsp_nll": nll * weight, "nsp_correct": (logits.argmax(-1) == label) * weight, "nsp_count": weight}
