"""Backward passes ordered for the platform that a model is trained on."""

from typing import Any

from jax.sharding import Mesh

from zoo.layers.ordered_gradients import ordered_gradients
from zoo.layers.products import with_products


def with_backward(model: Any, mesh: Mesh) -> Any:
  """On a single CPU, a copy of the model with `zoo.layers.ordered_gradients` in its dense layers; else the model.

  Values stay the same, gradients up to rounding. On TPUs and GPUs, whose compilers fuse what the barriers would keep
  apart, and on several devices, the program stays that of JAX's own gradients.
  """
  if mesh.size > 1 or mesh.devices.flat[0].platform != "cpu":
    return model
  return with_products(model, ordered_gradients)
