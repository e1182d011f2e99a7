"""Classification loss: one label, or one distribution over labels, per row."""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from zoo.errors import UserError
from zoo.objectives.objective import (
  NOTHING,
  REGIONS,
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
from zoo.preprocessing import as_float


def classify(model: Any, *, label_smoothing: float = 0.0) -> Objective:
  """Cross entropy of labels: the mean of -sum(targets * log_softmax(logits)).

  targets = (1 - label_smoothing) * label + label_smoothing / classes

  Args:
    model: (image, train=) or (tokens, segments=, valid=, train=) -> {"logits" [batch, num_classes]}.
    label_smoothing: share of the target that is spread over all classes, 0 to 1 (https://arxiv.org/abs/1512.00567).

  Batch: image, or tokens and optionally valid, segments and the regions of an image as of `masked_lm`; label int32
  [batch], or float [batch, num_classes] with rows that sum to 1 (soft targets, e.g. of mixup); optionally weight
  [batch]. Metrics: loss, accuracy (of the likeliest class). A label out of range makes the loss NaN.

  Raises:
    UserError: label_smoothing is out of range, or the labels do not fit the logits.

  >>> import zoo
  >>> model = zoo.build("vit", image_size=4, patch_size=2, dim=8, depth=1, num_heads=2, num_classes=3)
  >>> objective = classify(model, label_smoothing=0.1)
  >>> batch = {"image": jnp.zeros((2, 4, 4, 3)), "label": jnp.array([0, 2])}
  >>> params = objective.init(jax.random.key(0), batch)
  >>> loss, metrics = objective.loss(params, batch)
  >>> loss.shape, sorted(metrics)
  ((), ['accuracy', 'loss'])
  """
  if not 0 <= label_smoothing <= 1:
    raise UserError(f"classify.label_smoothing is {label_smoothing}. It must be from 0 to 1.")

  def arguments(batch: dict) -> tuple[list, dict]:
    check_batch(batch, "classify", "label", *([] if "image" in batch else ["tokens"]))
    return inputs(batch, model), options(batch, model)

  def forward(params: Any, batch: dict, rng: jax.Array | None = None, context: Context = NOTHING) -> dict:
    outputs, carried, _ = apply_with_carry(
      context, model, params, *inputs(batch, model), rng=rng, **options(batch, model)
    )
    logits, label = output(outputs, "logits", "classify", "Set the model's num_classes."), batch["label"]
    if label.ndim == 2 and label.shape != logits.shape:
      raise UserError(
        f"classify: soft labels {label.shape} do not fit logits {logits.shape}. Set model.num_classes to the number "
        "of labels."
      )
    weight = row_weight(batch, len(logits))
    if label.ndim == 2:
      targets = label
    else:  # NaN for labels out of range, for which jax.nn.one_hot returns zeros; rows of weight 0 may have any.
      is_class = (label >= 0) & (label < logits.shape[-1]) | (weight == 0)
      targets = jnp.where(is_class[:, None], jax.nn.one_hot(label, logits.shape[-1]), jnp.nan)
    nll = optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing))
    correct = (logits.argmax(-1) == targets.argmax(-1)).astype(jnp.float32)
    return {"nll": nll, "correct": correct, "weight": weight, **carried}

  def reduce(outputs: dict) -> tuple[jax.Array, dict]:
    weight = outputs["weight"]
    loss = ratio(outputs["nll"] * weight, weight)
    return loss, {"loss": loss, "accuracy": ratio(outputs["correct"] * weight, weight)}

  init, carry = init_and_carry(model, arguments)
  return Objective(init, forward, reduce, carry=carry)


def inputs(batch: dict, model: Any) -> list[jax.Array]:
  """The model's inputs: images, float32 [batch, height, width, channels], normalised with its preprocessing, if the
  batch has them; else tokens, int32 [batch, length]."""
  return [as_float(batch["image"], model)] if "image" in batch else [batch["tokens"]]


def options(batch: Mapping[str, Any], model: Any) -> dict[str, Any]:
  """Keyword inputs with tokens: `valid`, and `segments` if the model has segment embeddings."""
  entries = {} if "image" in batch else optional_entries(batch, "segments", "valid", *REGIONS)
  if "segments" in entries and getattr(model, "spec", None):
    takes = inspect.signature(type(model).__call__).parameters
    if "segments" not in takes or getattr(model, "segments", 0) is None:
      del entries["segments"]
  return entries
