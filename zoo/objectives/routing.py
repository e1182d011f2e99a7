"""How evenly a mixture of experts is used: what models sow in the collection "router", and the loss that evens it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


def routes(router: Mapping[str, Any], valid: jax.Array | None = None) -> dict[str, jax.Array]:
  """What the layers of a model did with each row.

  Args:
    router: the collection "router" of `model.apply(..., mutable=["router"])`.
    valid: bool [batch, length], True = a real token; the others do not count.

  Returns:
    chosen, probability: float32 [batch, experts], summed over layers and tokens; routed: float32 [batch], how many.
    Nothing where nothing was sown.
  """
  by_name: dict[str, list[jax.Array]] = {"chosen": [], "probability": []}
  for path, array in jax.tree_util.tree_leaves_with_path(router):
    name = next(key.key for key in reversed(path) if getattr(key, "key", None) in by_name)
    by_name[name].append(array.reshape(-1, *array.shape[-3:]))  # of a scan with an axis of layers in front
  if not by_name["chosen"]:
    return {}
  chosen, probability = (jnp.concatenate(arrays) for arrays in by_name.values())
  counts = jnp.ones(chosen.shape[1:3]) if valid is None else valid.astype(jnp.float32)
  summed = {
    name: jnp.einsum("nble,bl->be", array, counts) for name, array in (("chosen", chosen), ("probability", probability))
  }
  return {**summed, "routed": len(chosen) * counts.sum(-1)}


def imbalance(rows: Mapping[str, jax.Array]) -> jax.Array:
  """experts * sum over experts of (share of tokens that chose it) * (mean probability of it), over all layers together.

  It is least, top_k, where all are chosen alike: equations 4 to 6 of https://arxiv.org/abs/2101.03961.

  Args:
    rows: of `routes`.

  Returns:
    float32 []
  """
  total = jnp.maximum(rows["routed"].sum(), 1)
  chosen, probability = (rows[name].sum(0) / total for name in ("chosen", "probability"))
  return len(chosen) * (jax.lax.stop_gradient(chosen) * probability).sum()
