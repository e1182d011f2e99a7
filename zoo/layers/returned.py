"""Interception of module outputs, so that arrays can be placed on a mesh that layers do not know."""

import functools

import flax.linen as nn
import jax


def intercept_outputs(change):
  """Context in which every array that a module returns is passed through `change`.

  Args:
    change: (path of the module, e.g. "encoder/stack/layer_0/self_attention/key", array) -> array of the same shape.
  """
  return nn.intercept_methods(functools.partial(_call, change))


def _call(change, method, args, options, context):
  output = method(*args, **options)
  if context.method_name != "__call__" or not isinstance(output, jax.Array):
    return output
  return change("/".join(context.module.path), output)
