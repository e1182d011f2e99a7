"""SigLIP's sigmoid loss: a binary classification of every image-text pair (https://arxiv.org/abs/2303.15343)"""

from typing import Any

import jax
import optax
from jax.sharding import NamedSharding

from zoo.errors import UserError
from zoo.objectives.contrastive import clamp, pick_rates, row_info, two_towers
from zoo.objectives.objective import Objective, ratio
from zoo.objectives.pairs import comparison


def sigmoid_contrastive(
  model: Any,
  *,
  max_scale: float = 100.0,
  pairs: str = "whole",
  chunk: int | None = None,
  by_row: NamedSharding | None = None,
) -> Objective:
  """Sum over texts, mean over images of -log sigmoid(y * (scale * image @ text + bias)); y = 1 for pairs, else -1.

  Rows of the same `group` are pairs of each other. Scale and bias are learned; the scale is clamped as in `contrastive`
  (100 is rarely reached: SigLIP's scales end near 10 to 120).

  Args:
    model: (image, tokens, valid=, train=) -> {"image" [batch, embed], "text" [batch, embed], "scale" [], "bias" []}.
    max_scale, pairs, chunk, by_row: as in `contrastive`.

  Batch and metrics are those of `contrastive`, with the metric bias. Raises UserError if the model has no bias.

  >>> import jax.numpy as jnp
  >>> import zoo
  >>> towers = dict(image_dim=8, image_depth=1, image_heads=2, text_dim=8, text_depth=1, text_heads=2, embed_dim=4)
  >>> model = zoo.build("clip", image_size=4, patch_size=2, vocab_size=7, max_length=5, logit_bias=-10.0, **towers)
  >>> objective = sigmoid_contrastive(model)
  >>> batch = {"image": jnp.zeros((2, 4, 4, 3)), "tokens": jnp.array([[1, 2, 6], [3, 4, 6]])}
  >>> params = objective.init(jax.random.key(0), batch)
  >>> _, metrics = objective.loss(params, batch)
  >>> float(metrics["bias"])
  -10.0
  """
  init, forward, carry = two_towers(model)
  compare = comparison(sigmoid_sums, pairs, chunk, by_row)

  def reduce(outputs: dict) -> tuple[jax.Array, dict]:
    if "bias" not in outputs:
      raise UserError(
        "sigmoid_contrastive needs a model with a logit bias. Set model.logit_bias=-10.0, or use contrastive."
      )
    weight = outputs["weight"]
    scale, bias = clamp(outputs["scale"].mean(), max_scale), outputs["bias"].mean()
    images, texts = compare(outputs["image"], outputs["text"], scale, bias, row_info(outputs))
    loss = ratio(images["total"] * weight, weight)
    return loss, {"loss": loss, **pick_rates(images, texts, weight), "scale": scale, "bias": bias}

  return Objective(init, forward, reduce, carry=carry)


def sigmoid_sums(logits: jax.Array, same: jax.Array, valid: jax.Array, axis: int) -> dict[str, jax.Array]:
  """The loss of each image, summed over texts; texts have no loss of their own. See `zoo.objectives.pairs`.

  Args and shapes as of `zoo.objectives.contrastive.softmax_sums`; axis 0 returns {}.
  """
  if axis == 0:
    return {}
  return {"total": (optax.sigmoid_binary_cross_entropy(logits, same) * valid).sum(axis)}
