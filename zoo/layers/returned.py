"""Interception of calls and outputs of modules: for what must know their order, or place arrays on a mesh."""

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


def intercept_calls(note):
  """Context in which `note` is called with the path of a module whenever one of its methods is, setup included."""

  def call(method, args, options, context):
    note("/".join(context.module.path))
    return method(*args, **options)

  return nn.intercept_methods(call)
