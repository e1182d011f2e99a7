"""CLIP's loss: each image picks its caption out of the batch, each caption its image (https://arxiv.org/abs/2103.00020)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from zoo.objectives.objective import Objective, apply, check_batch, output, present, ratio, row_weight


def contrastive(model: Any, *, max_scale: float = 100.0) -> Objective:
  """Softmax over all pairs of the batch: cross_entropy(scale * image @ text.T), the mean over rows and columns.

  Rows of the same `group` show the same thing: each is a right answer for the others, with equal parts of the target.
  The scale exp(logit_scale) is learned and clamped to `max_scale` inside the loss: at the clamp a gradient that would
  raise it further is dropped, one that lowers it passes. (CLIP's authors clamp the parameter after each update, which
  would need a hook in the train step for this one parameter.)

  Args:
    model: (image, tokens, valid=, train=) -> {"image" [batch, embed], "text" [batch, embed], "scale" []}, unit vectors.
    max_scale: largest temperature factor.

  Batch: image [batch, height, width, channels], tokens int32 [batch, length]; optionally valid, group int32 [batch] and
  weight [batch] (rows of weight 0 are no answers either). Metrics: loss, accuracy, image_to_text, text_to_image, scale.
  """

  def reduce(outputs: dict) -> tuple[jax.Array, dict]:
    weight, same = outputs["weight"], same_group(outputs)
    scale = clamp(outputs["scale"].mean(), max_scale)
    logits = similarity(outputs) * scale

    def one_way(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
      targets = same / jnp.maximum(same.sum(-1, keepdims=True), 1)
      nll = optax.softmax_cross_entropy(without(logits, weight), targets)
      return ratio(nll * weight, weight), pick_rate(logits, same, weight)

    (rows, image_to_text), (columns, text_to_image) = one_way(logits), one_way(logits.T)
    loss = (rows + columns) / 2
    accuracy = (image_to_text + text_to_image) / 2
    found = {"image_to_text": image_to_text, "text_to_image": text_to_image}
    return loss, {"loss": loss, "accuracy": accuracy, **found, "scale": scale}

  init, forward = two_towers(model)
  return Objective(init, forward, reduce)


def two_towers(model: Any) -> tuple:
  """-> init, forward of a model that embeds images and texts. Outputs: image, text, scale, bias, group, weight."""

  def init(rng: jax.Array, batch: dict) -> Any:
    check_batch(batch, "a contrast", "image", "tokens")
    return model.init(rng, as_float(batch["image"][:1]), batch["tokens"][:1])["params"]

  def forward(params: Any, batch: dict, rng: jax.Array | None = None) -> dict:
    options = present(batch, "valid")
    found = apply(model, params, as_float(batch["image"]), batch["tokens"], rng=rng, **options)
    rows = len(batch["tokens"])
    vectors = {name: output(found, name, "a contrast", "Use family clip.") for name in ("image", "text")}
    scalars = {name: jnp.full(rows, found[name], jnp.float32) for name in ("scale", "bias") if name in found}
    return {**vectors, **scalars, **present(batch, "group"), "weight": row_weight(batch, rows)}

  return init, forward


def as_float(image: jax.Array) -> jax.Array:
  """Images as the models want them, in [-1, 1]; uint8 (0 to 255), a quarter of the transfer, is converted."""
  return image.astype(jnp.float32) / 127.5 - 1 if image.dtype == jnp.uint8 else image


def same_group(outputs: dict) -> jax.Array:
  """float32 [batch, batch]: 1 where row and column belong together and the column counts (weight above 0)."""
  group = outputs.get("group", jnp.arange(len(outputs["weight"])))
  return ((group[:, None] == group[None, :]) & (outputs["weight"] > 0)[None, :]).astype(jnp.float32)


def similarity(outputs: dict) -> jax.Array:
  """image @ text.T [batch, batch], in full float32: a scale of 100 magnifies the rounding of bfloat16 products."""
  return jnp.matmul(outputs["image"], outputs["text"].T, precision=jax.lax.Precision.HIGHEST)


def without(logits: jax.Array, weight: jax.Array) -> jax.Array:
  """The logits with no chance for columns of weight 0."""
  return jnp.where(weight[None] > 0, logits, -1e9)


def pick_rate(logits: jax.Array, same: jax.Array, weight: jax.Array) -> jax.Array:
  """The share of rows whose highest logit is one of their own."""
  picked = jnp.take_along_axis(same, without(logits, weight).argmax(-1)[:, None], axis=-1)[:, 0]
  return ratio(picked * weight, weight)


def clamp(x: jax.Array, highest: float) -> jax.Array:
  """min(x, highest), whose gradient is dropped at the clamp only where a step against it would raise x further."""

  @jax.custom_vjp
  def clamped(x: jax.Array) -> jax.Array:
    return jnp.minimum(x, highest)

  def back(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    return (jnp.where((x < highest) | (gradient > 0), gradient, 0),)

  clamped.defvjp(lambda x: (clamped(x), x), back)
  return clamped(x)
