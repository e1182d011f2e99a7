"""Memory of rows across batches, cleared where a row restarts."""

from typing import Any

import jax
import jax.numpy as jnp

from zoo.objectives.objective import ROWS, Batch, Context
from zoo.tree import path_name, row_axis


def continuing(context: Context, batch: Batch) -> Context:
  """The context with what rows carry cleared, to zeros, where `batch["continues"]`, bool [batch], is False."""
  rows = context.carry.get(ROWS)
  if not rows or "continues" not in batch:
    return context

  def cleared(path: Any, array: jax.Array) -> jax.Array:
    shape = [1] * array.ndim
    shape[row_axis(path_name(path))] = -1
    return jnp.where(batch["continues"].reshape(shape), array, jnp.zeros_like(array))

  carry = {**context.carry, ROWS: jax.tree_util.tree_map_with_path(cleared, rows)}
  return context._replace(carry=carry)
