"""A door for whoever places arrays on a mesh, so that layers need not know one."""

import functools

import flax.linen as nn
import jax


def on_returned(change):
  """A context in which every array that a module returns goes through `change`.

  Args:
    change: (path of the module, e.g. "encoder/stack/layer_0/self_attention/key", array) -> array of the same shape.
  """
  return nn.intercept_methods(functools.partial(_call, change))


def _call(change, method, args, options, context):
  found = method(*args, **options)
  if context.method_name != "__call__" or not isinstance(found, jax.Array):
    return found
  return change("/".join(context.module.path), found)
