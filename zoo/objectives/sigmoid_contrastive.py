"""SigLIP's loss: of every image and every text, do the two belong together? (https://arxiv.org/abs/2303.15343)"""

from typing import Any

import jax
import optax

from zoo.errors import UserError
from zoo.objectives.contrastive import clamp, pick_rate, same_group, similarity, two_towers
from zoo.objectives.objective import Objective, ratio


def sigmoid_contrastive(model: Any, *, max_scale: float = 100.0) -> Objective:
  """Mean over images of the sum over texts of -log sigmoid(y * (scale * image @ text + bias)); y = 1 for pairs or -1.

  Rows of the same `group` are pairs of each other. Scale and bias are learned; the scale is clamped as in `contrastive`
  (at 100 it is out of the way: SigLIP's scales end near 10 to 120).

  Args:
    model: (image, tokens, valid=, train=) -> {"image" [batch, embed], "text" [batch, embed], "scale" [], "bias" []}.
    max_scale: largest temperature factor.

  Batch and metrics are those of `contrastive`, with the metric bias. Raises UserError if the model has no bias.
  """
  init, forward = two_towers(model)

  def reduce(outputs: dict) -> tuple[jax.Array, dict]:
    if "bias" not in outputs:
      raise UserError("sigmoid_contrastive needs a model with a bias. Set model.logit_bias=-10.0, or use contrastive.")
    weight, same = outputs["weight"], same_group(outputs)
    scale, bias = clamp(outputs["scale"].mean(), max_scale), outputs["bias"].mean()
    logits = similarity(outputs) * scale + bias
    nll = optax.sigmoid_binary_cross_entropy(logits, same) * (weight[None] > 0)
    loss = ratio(nll.sum(-1) * weight, weight)
    found = {"image_to_text": pick_rate(logits, same, weight), "text_to_image": pick_rate(logits.T, same, weight)}
    accuracy = (found["image_to_text"] + found["text_to_image"]) / 2
    return loss, {"loss": loss, "accuracy": accuracy, **found, "scale": scale, "bias": bias}

  return Objective(init, forward, reduce)
