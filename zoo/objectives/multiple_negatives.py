"""Each text picks the one that goes with it out of the batch (multiple negatives ranking).

https://arxiv.org/abs/1705.00652, section 4.4; with a scaled cosine as in sentence-transformers, and hard negatives of
each row as further candidates of all.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from zoo.errors import UserError
from zoo.objectives.objective import Objective, ratio
from zoo.objectives.sentences import over_dims, text_vectors, unit

MASKED = -1e9  # The logit of what is no candidate.


def multiple_negatives(
  model: Any,
  *,
  pooling: Sequence[str] = ("mean",),
  scale: float = 20.0,
  symmetric: bool = False,
  dims: Sequence[int] | None = None,
  dim_weights: Sequence[float] | None = None,
) -> Objective:
  """cross_entropy(scale * cosine(anchor, candidates)), where candidates are all rows' positives and negatives.

  A candidate that is no wrong answer is left out: a text equal to the anchor or its positive, and the positives of an
  equal anchor. Rows of weight 0 have no candidates and count for nothing.

  Args:
    model: an encoder of texts: (tokens, valid=, train=) -> {"hidden" [rows, length, dim]}.
    pooling: how a vector is made of the states of its tokens: names of `zoo.pooling.POOLS`.
    scale: of the cosines, the inverse of a temperature.
    symmetric: whether positives pick their anchors, too: the mean of both losses.
    dims: the loss is a sum over vectors cut to so many entries (Matryoshka); None: whole vectors alone.
    dim_weights: of the loss at each of `dims`; 1 if None.

  Batch: tokens int32 [batch, texts, length], the anchor, its positive and any number of negatives; optionally valid
  bool, alike; present bool [batch, texts], False where a row lacks a negative; text_ids int32 [batch, texts], equal for
  equal texts; weight [batch]. Metrics: loss, accuracy (anchors whose highest cosine is their positive's).

  Raises:
    UserError: scale is not above 0, or an example has one text only.

  >>> import zoo
  >>> sizes = dict(vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  >>> objective = multiple_negatives(zoo.build("bert", **sizes, head=None))
  >>> batch = {"tokens": jnp.array([[[1, 2], [1, 3]], [[4, 5], [4, 6]]])}
  >>> params = objective.init(jax.random.key(0), batch)
  >>> loss, metrics = objective.loss(params, batch)
  >>> loss.shape, sorted(metrics)
  ((), ['accuracy', 'loss'])
  """
  if not 0 < scale < float("inf"):
    raise UserError(f"multiple_negatives: scale is {scale}. It must be above 0; 20 is usual.")
  init, forward, carry = text_vectors(model, pooling, "multiple_negatives")

  def reduce(outputs: dict) -> tuple[jax.Array, dict]:
    weight, vectors = outputs["weight"], outputs["vectors"]
    if vectors.shape[1] < 2:
      raise UserError("multiple_negatives needs an anchor and a positive in each example; there is one text.")
    allowed = candidates(outputs)

    def scores(vectors: jax.Array) -> jax.Array:
      x = unit(vectors)
      cosines = jnp.einsum("ad,btd->abt", x[:, 0], x[:, 1:], precision=jax.lax.Precision.HIGHEST)
      return jnp.where(allowed, scale * cosines, MASKED)

    def loss_at(vectors: jax.Array) -> jax.Array:
      logits = scores(vectors)
      own = jnp.diagonal(logits[..., 0])
      log_sum = jax.nn.logsumexp(logits, axis=(1, 2))
      if symmetric:
        back = jnp.where(candidates_back(allowed, weight), logits[..., 0].T, MASKED)
        log_sum = (log_sum + jax.nn.logsumexp(back, axis=1)) / 2
      return ratio((log_sum - own) * weight, weight)

    loss = over_dims(loss_at, dims, dim_weights, "multiple_negatives")(vectors)
    logits = jax.lax.stop_gradient(scores(vectors))
    own = jnp.diagonal(logits[..., 0])
    first = (own >= logits.max(axis=(1, 2))).astype(jnp.float32)
    return loss, {"loss": loss, "accuracy": ratio(first * weight, weight)}

  return Objective(init, forward, reduce, carry=carry)


def candidates(outputs: dict) -> jax.Array:
  """bool [batch, batch, texts - 1]: of which texts an anchor has to tell its positive, that one among them."""
  rows, texts = outputs["vectors"].shape[:2]
  own = jnp.eye(rows, dtype=bool)[..., None] & (jnp.arange(texts - 1) == 0)[None, None]
  allowed = jnp.broadcast_to((outputs["weight"] > 0)[None, :, None], own.shape)
  if "present" in outputs:
    allowed &= outputs["present"][None, :, 1:]
  if "text_ids" in outputs:
    ids = outputs["text_ids"]
    same = lambda one, others: one.reshape(-1, *[1] * others.ndim) == others[None]
    right = same(ids[:, 0], ids[:, 1:]) | same(ids[:, 1], ids[:, 1:])
    right |= same(ids[:, 0], ids[:, 0])[..., None] & (jnp.arange(texts - 1) == 0)[None, None]
    allowed &= ~right
  return allowed | own


def candidates_back(allowed: jax.Array, weight: jax.Array) -> jax.Array:
  """bool [batch, batch]: of which anchors a positive has to tell its own: as the other way, which is symmetric."""
  own = jnp.eye(len(weight), dtype=bool)
  return (allowed[..., 0].T & (weight > 0)[None]) | own
