"""CLIP's contrastive loss: a softmax over the captions and over the images of the batch (https://arxiv.org/abs/2103.00020)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from zoo.objectives.objective import (
  NOTHING,
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
from zoo.objectives.pairs import MASKED_LOGIT, comparison
from zoo.preprocessing import as_float, text_options


def contrastive(
  model: Any,
  *,
  max_scale: float = 100.0,
  pairs: str = "whole",
  chunk: int | None = None,
  by_row: NamedSharding | None = None,
) -> Objective:
  """Cross entropy of scale * image @ text.T over all pairs of the batch: the mean over rows and columns.

  Rows of the same `group` show the same thing: each is a right answer for the others, with equal parts of the target.
  The scale exp(logit_scale) is learned and clamped to `max_scale` inside the loss: at the clamp a gradient that would
  raise it further is dropped, one that lowers it is kept. (CLIP's authors clamp the parameter after each update, which
  would need a hook in the train step for this one parameter.)

  Args:
    model: (image, tokens, valid=, train=) -> {"image" [batch, embed], "text" [batch, embed], "scale" []}, unit vectors.
    max_scale: largest temperature factor.
    pairs: "whole", "all_gather" or "ring": how pairs are sharded over devices, see `zoo.objectives.pairs`.
    chunk: number of texts that a device compares with its images at a time, with pairs "all_gather" or "ring".
    by_row: sharding of rows; None: XLA decides.

  Batch: image [batch, height, width, channels], of which uint8 is normalised with the model's preprocessing
  (`zoo.preprocessing`), tokens int32 [batch, length]; optionally valid, group int32 [batch] and
  weight [batch] (rows of weight 0 are no answers either). Metrics: loss, accuracy, image_to_text, text_to_image, scale.

  >>> import zoo
  >>> towers = dict(image_dim=8, image_depth=1, image_heads=2, text_dim=8, text_depth=1, text_heads=2, embed_dim=4)
  >>> model = zoo.build("clip", image_size=4, patch_size=2, vocab_size=7, max_length=5, **towers)
  >>> objective = contrastive(model)
  >>> batch = {"image": jnp.zeros((2, 4, 4, 3)), "tokens": jnp.array([[1, 2, 6], [3, 4, 6]])}
  >>> params = objective.init(jax.random.key(0), batch)
  >>> loss, metrics = objective.loss(params, batch)
  >>> loss.shape, sorted(metrics)
  ((), ['accuracy', 'image_to_text', 'loss', 'scale', 'text_to_image'])
  """

  compare = comparison(softmax_sums, pairs, chunk, by_row)

  def reduce(outputs: dict) -> tuple[jax.Array, dict]:
    weight, scale = outputs["weight"], clamp(outputs["scale"].mean(), max_scale)
    images, texts = compare(outputs["image"], outputs["text"], scale, jnp.zeros(()), row_info(outputs))

    def one_way(side: dict) -> jax.Array:
      return ratio((side["log_sum"] - side["total"] / jnp.maximum(side["count"], 1)) * weight, weight)

    loss = (one_way(images) + one_way(texts)) / 2
    return loss, {"loss": loss, **pick_rates(images, texts, weight), "scale": scale}

  init, forward, carry = two_towers(model)
  return Objective(init, forward, reduce, carry=carry)


def two_towers(model: Any) -> tuple:
  """`init`, `forward` and `carry` for a dual encoder. Outputs: image, text, scale, bias, group, weight."""

  def arguments(batch: dict) -> tuple[list, dict]:
    check_batch(batch, "a contrast", "image", "tokens")
    return [as_float(batch["image"], model), batch["tokens"]], {}

  def forward(params: Any, batch: dict, rng: jax.Array | None = None, context: Context = NOTHING) -> dict:
    inputs, _ = arguments(batch)
    options = text_options(model, optional_entries(batch, "valid"))
    outputs, carried, _ = apply_with_carry(context, model, params, *inputs, rng=rng, **options)
    rows = len(batch["tokens"])
    vectors = {name: output(outputs, name, "a contrast", "Use family clip.") for name in ("image", "text")}
    scalars = {name: jnp.full(rows, outputs[name], jnp.float32) for name in ("scale", "bias") if name in outputs}
    return {**vectors, **scalars, **optional_entries(batch, "group"), "weight": row_weight(batch, rows), **carried}

  init, carry = init_and_carry(model, arguments)
  return init, forward, carry


def softmax_sums(logits: jax.Array, same: jax.Array, valid: jax.Array, axis: int) -> dict[str, jax.Array]:
  """The sums of a cross entropy whose target is spread evenly over `same`; see `zoo.objectives.pairs`.

  Args:
    logits: float32 [images, texts].
    same: float32 [images, texts], 1 for pairs that match.
    valid: bool, broadcasts to logits: False for padding rows.
    axis: 1 sums over the texts of each image, 0 over the images of each text.

  Returns:
    log_sum, total: float32 [images] or [texts]
  """
  log_sum = jax.nn.logsumexp(jnp.where(valid, logits, MASKED_LOGIT), axis=axis)
  return {"log_sum": log_sum, "total": (logits * same).sum(axis)}


def row_info(outputs: dict) -> dict[str, jax.Array]:
  """`row_info` of a batch: group int32 [batch], by default one per row, and valid bool [batch], where weight > 0."""
  weight = outputs["weight"]
  return {"group": outputs.get("group", jnp.arange(len(weight))), "valid": weight > 0}


def pick_rates(images: dict, texts: dict, weight: jax.Array) -> dict[str, jax.Array]:
  """Accuracies, float32 scalars: the fraction of images whose highest logit is a match, that of texts, and their mean.

  images, texts: with "picked", float32 [batch]. weight: float32 [batch], 0 for padding rows.
  """
  rates = {"image_to_text": ratio(images["picked"] * weight, weight)}
  rates["text_to_image"] = ratio(texts["picked"] * weight, weight)
  return {"accuracy": (rates["image_to_text"] + rates["text_to_image"]) / 2, **rates}


def clamp(x: jax.Array, highest: float) -> jax.Array:
  """min(x, highest), whose gradient is dropped at the clamp only if a descent step would raise x further.

  >>> float(clamp(jnp.array(5.0), 4.6)), float(jax.grad(lambda x: -clamp(x, 4.6))(5.0))
  (4.599999904632568, 0.0)
  """

  @jax.custom_vjp
  def clamped(x: jax.Array) -> jax.Array:
    return jnp.minimum(x, highest)

  def back(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    return (jnp.where((x < highest) | (gradient > 0), gradient, 0),)

  clamped.defvjp(lambda x: (clamped(x), x), back)
  return clamped(x)
