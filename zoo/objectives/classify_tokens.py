"""Token classification loss."""

from typing import Any

import jax
import jax.numpy as jnp

from zoo.errors import UserError
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


def classify_tokens(model: Any) -> Objective:
  """Cross entropy of token labels: the mean of -log p(label) over all tokens of the batch with a label.

  Args:
    model: (tokens, segments=, valid=, train=) -> {"logits" [batch, length, num_classes]}.

  Batch: tokens int32 [batch, length]; label int32 [batch, length], below 0 (-1, or -100 as transformers writes it)
  for tokens that do not count: special tokens, padding, all but the first piece of a word; optionally valid, segments
  [batch, length] and weight [batch]. Metrics: loss, accuracy, tokens (that count). A label out of range makes the
  loss NaN.

  Raises:
    UserError: the labels do not fit the logits.

  >>> import zoo
  >>> sizes = dict(vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  >>> model = zoo.build("bert", **sizes, head="classify_tokens", num_classes=3)
  >>> objective = classify_tokens(model)
  >>> batch = {"tokens": jnp.array([[4, 5, 6, 2]]), "label": jnp.array([[-100, 2, -100, 0]])}
  >>> params = objective.init(jax.random.key(0), batch)
  >>> loss, metrics = objective.loss(params, batch)
  >>> loss.shape, int(metrics["tokens"])
  ((), 2)
  """

  def arguments(batch: dict) -> tuple[list, dict]:
    check_batch(batch, "classify_tokens", "tokens", "label")
    return [batch["tokens"]], options(batch, model)

  def forward(params: Any, batch: dict, rng: jax.Array | None = None, context: Context = NOTHING) -> dict:
    outputs, carried, _ = apply_with_carry(context, model, params, batch["tokens"], rng=rng, **options(batch, model))
    logits = output(outputs, "logits", "classify_tokens", "Build it with head='classify_tokens'.")
    label = batch["label"]
    if logits.shape[:-1] != label.shape:
      raise UserError(
        f"classify_tokens: logits {logits.shape} do not fit labels {label.shape}. Build the model with "
        "head='classify_tokens', and choose data with a label for each token."
      )
    counts = row_weight(batch, len(logits))[:, None] * (label >= 0)
    sums = likelihood(logits, jnp.maximum(label, 0), counts)
    known = (label < logits.shape[-1]).all(-1)  # A label out of range would be clipped.
    return {**sums, "nll": jnp.where(known, sums["nll"], jnp.nan), "count": counts.sum(-1), **carried}

  def reduce(outputs: dict) -> tuple[jax.Array, dict]:
    loss, accuracy = (ratio(outputs[name], outputs["count"]) for name in ("nll", "correct"))
    return loss, {"loss": loss, "accuracy": accuracy, "tokens": outputs["count"].sum()}

  init, carry = init_and_carry(model, arguments)
  return Objective(init, forward, reduce, carry=carry)
