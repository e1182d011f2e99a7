"""Cosines of pairs of texts as numbers that people gave them (https://arxiv.org/abs/1908.10084, section 3)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from zoo.objectives.objective import Objective, check_batch, ratio
from zoo.objectives.sentences import over_dims, text_vectors, unit


def cosine_similarity(
  model: Any,
  *,
  pooling: Sequence[str] = ("mean",),
  dims: Sequence[int] | None = None,
  dim_weights: Sequence[float] | None = None,
) -> Objective:
  """Mean of (cosine(first, second) - score) ** 2.

  Args:
    model: an encoder of texts: (tokens, valid=, train=) -> {"hidden" [rows, length, dim]}.
    pooling: how a vector is made of the states of its tokens: names of `zoo.pooling.POOLS`.
    dims, dim_weights: as of `zoo.objectives.multiple_negatives`.

  Batch: tokens int32 [batch, 2, length]; score float [batch], from -1 to 1; optionally valid, alike, and weight
  [batch]. Metrics: loss.

  >>> import zoo
  >>> sizes = dict(vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  >>> objective = cosine_similarity(zoo.build("bert", **sizes, head=None))
  >>> batch = {"tokens": jnp.array([[[1, 2], [1, 3]]]), "score": jnp.array([0.5])}
  >>> params = objective.init(jax.random.key(0), batch)
  >>> loss, metrics = objective.loss(params, batch)
  >>> loss.shape, sorted(metrics)
  ((), ['loss'])
  """
  init, vectors_of, carry = text_vectors(model, pooling, "cosine_similarity")

  def forward(params: Any, batch: dict, *more: Any, **options: Any) -> dict:
    check_batch(batch, "cosine_similarity", "tokens", "score")
    return vectors_of(params, batch, *more, **options)

  def reduce(outputs: dict) -> tuple[jax.Array, dict]:
    weight, score = outputs["weight"], outputs["score"].astype(jnp.float32)

    def loss_at(vectors: jax.Array) -> jax.Array:
      first, second = jnp.moveaxis(unit(vectors), 1, 0)
      return ratio(jnp.square((first * second).sum(-1) - score) * weight, weight)

    loss = over_dims(loss_at, dims, dim_weights, "cosine_similarity")(outputs["vectors"])
    return loss, {"loss": loss}

  return Objective(init, forward, reduce, carry=carry)
