"""What rows carry from batch to batch, cleared where a row begins anew."""

from typing import Any

import jax
import jax.numpy as jnp

from zoo.errors import UserError
from zoo.objectives.objective import ROWS, Batch, Context
from zoo.tree import path_name, row_axis


def continuing(context: Context, batch: Batch, what: str) -> Context:
  """The context with what rows carry cleared, to zeros, where `batch["continues"]`, bool [batch], says they begin anew.

  Args:
    what: the objective, for the message.

  Raises:
    UserError: rows carry something, and the batch does not say which of them continue.
  """
  rows = context.carry.get(ROWS)
  if not rows:
    return context
  if "continues" not in batch:
    raise UserError(
      f"{what}: the model carries {' and '.join(rows)} from batch to batch, and rows of these data do not continue. "
      "Use the pipeline contiguous, or build the model without it."
    )

  def cleared(path: Any, array: jax.Array) -> jax.Array:
    shape = [1] * array.ndim
    shape[row_axis(path_name(path))] = -1
    return jnp.where(batch["continues"].reshape(shape), array, jnp.zeros_like(array))

  carry = {**context.carry, ROWS: jax.tree_util.tree_map_with_path(cleared, rows)}
  return context._replace(carry=carry)
