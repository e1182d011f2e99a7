"""Activation memory: bytes saved for the backward pass, after rematerialisation, counted in the jaxpr."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from zoo.objectives.objective import Objective


def saved_activation_bytes(
  objective: Objective, params: Any, batch: Mapping[str, Any], rng: jax.Array, accumulate: int = 1
) -> int:
  """Bytes of activations saved for the backward pass of a training step, over all devices. Nothing is computed.

  Counted in the jaxpr: XLA may save less, if it finds arrays equal or cheap to recompute. Parameters
  do not count, nor arrays computed from them alone, such as bfloat16 copies; neither does the batch.

  Args:
    params, batch: shapes; the full batch.
    rng: key of the training pass.
    accumulate: number of parts of the batch. Only one part's activations are saved at a time.
  """
  rows = next(iter(batch.values())).shape[0] // accumulate

  def of(count: int) -> list[Any]:
    part = {name: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype) for name, x in batch.items()}
    run = objective.loss if accumulate == 1 else objective.forward
    return residuals(lambda params, batch: _floats(run(params, batch, rng)), params, part)

  # Arrays with the same shape for twice the rows are computed from parameters alone.
  pairs = zip(of(rows), of(2 * rows), strict=True)
  return sum(math.prod(one.shape) * one.dtype.itemsize for one, twice in pairs if one.shape != twice.shape)


def residuals(function: Callable, params: Any, *args: Any) -> list[Any]:
  """Residuals of the gradient of `function(params, *args)` by `params`, as shapes and dtypes; without its arguments."""
  pulled = lambda params, *args: jax.tree.leaves(jax.vjp(lambda p: function(p, *args), params)[1])
  program = jax.make_jaxpr(pulled)(params, *args).jaxpr
  inputs = {id(variable) for variable in program.invars}
  outputs = {id(variable): variable for variable in program.outvars if not isinstance(variable, Literal)}
  return [variable.aval for name, variable in outputs.items() if name not in inputs]


def _floats(outputs: Any) -> list[jax.Array]:
  return [x for x in jax.tree.leaves(outputs) if jnp.issubdtype(x.dtype, jnp.floating)]
