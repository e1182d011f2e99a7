"""Load balancing of mixtures of experts, from the collection "router" that models sow."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


def routes(router: Mapping[str, Any], valid: jax.Array | None = None) -> dict[str, jax.Array]:
  """Routing statistics of each row, summed over layers and tokens.

  Args:
    router: the collection "router" of `model.apply(..., mutable=["router"])`.
    valid: bool [batch, length], True = a real token; the others do not count.

  Returns:
    chosen, probability: float32 [batch, experts]; routed: float32 [batch], the number of (layer, token) pairs.
    {} if nothing was sown.
  """
  by_name: dict[str, list[jax.Array]] = {"chosen": [], "probability": []}
  for path, array in jax.tree_util.tree_leaves_with_path(router):
    name = next(key.key for key in reversed(path) if getattr(key, "key", None) in by_name)
    by_name[name].append(array.reshape(-1, *array.shape[-3:]))  # scanned layers have a leading axis
  if not by_name["chosen"]:
    return {}
  chosen, probability = (jnp.concatenate(arrays) for arrays in by_name.values())
  counts = jnp.ones(chosen.shape[1:3]) if valid is None else valid.astype(jnp.float32)
  summed = {
    name: jnp.einsum("nble,bl->be", array, counts) for name, array in (("chosen", chosen), ("probability", probability))
  }
  return {**summed, "routed": len(chosen) * counts.sum(-1)}


def imbalance(rows: Mapping[str, jax.Array]) -> jax.Array:
  """Load balancing loss: experts * sum over experts of (share of tokens that chose it) * (its mean probability).

  Sums are over all layers. Its minimum, top_k, is at uniform routing: equations 4 to 6 of https://arxiv.org/abs/2101.03961.

  Args:
    rows: from `routes`.

  Returns:
    float32 []
  """
  total = jnp.maximum(rows["routed"].sum(), 1)
  chosen, probability = (rows[name].sum(0) / total for name in ("chosen", "probability"))
  return len(chosen) * (jax.lax.stop_gradient(chosen) * probability).sum()
