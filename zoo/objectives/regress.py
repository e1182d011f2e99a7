"""Regression loss: one number per row."""

from typing import Any

import jax
import jax.numpy as jnp

from zoo.errors import UserError
from zoo.objectives.classify import inputs, options
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


def regress(model: Any) -> Objective:
  """Mean squared error: the mean of (logits[:, 0] - score) ** 2.

  Args:
    model: (image, train=) or (tokens, segments=, valid=, train=) -> {"logits" [batch, 1]}.

  Batch: image, or tokens and optionally valid and segments; score float [batch]; optionally weight [batch]. Metrics:
  loss.

  Raises:
    UserError: the model returns more than one number per example.

  >>> import zoo
  >>> model = zoo.build("vit", image_size=4, patch_size=2, dim=8, depth=1, num_heads=2, num_classes=1)
  >>> objective = regress(model)
  >>> batch = {"image": jnp.zeros((2, 4, 4, 3)), "score": jnp.array([0.0, 2.5])}
  >>> params = objective.init(jax.random.key(0), batch)
  >>> loss, metrics = objective.loss(params, batch)
  >>> loss.shape, sorted(metrics)
  ((), ['loss'])
  """

  def arguments(batch: dict) -> tuple[list, dict]:
    check_batch(batch, "regress", "score", *([] if "image" in batch else ["tokens"]))
    return inputs(batch, model), options(batch, model)

  def forward(params: Any, batch: dict, rng: jax.Array | None = None, context: Context = NOTHING) -> dict:
    outputs, carried, _ = apply_with_carry(
      context, model, params, *inputs(batch, model), rng=rng, **options(batch, model)
    )
    logits = output(outputs, "logits", "regress", "Set the model's num_classes to 1.")
    if logits.ndim != 2 or logits.shape[-1] != 1:
      raise UserError(f"regress needs a model of one number, this one gives logits {logits.shape}. Set num_classes=1.")
    error = jnp.square(logits[:, 0] - batch["score"].astype(jnp.float32))
    return {"error": error, "weight": row_weight(batch, len(logits)), **carried}

  def reduce(outputs: dict) -> tuple[jax.Array, dict]:
    loss = ratio(outputs["error"] * outputs["weight"], outputs["weight"])
    return loss, {"loss": loss}

  init, carry = init_and_carry(model, arguments)
  return Objective(init, forward, reduce, carry=carry)
