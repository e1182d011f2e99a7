"""Replaces submodules of a built model: a module is a frozen dataclass whose fields are its parts."""

import dataclasses

import flax.linen as nn


def replace_modules(module, change, path=""):
  """A copy of the module with every submodule, and itself, replaced by `change(part, path)`.

  Args:
    module: or a tuple of modules.
    change: returns its argument or a replacement. Submodules of a replacement are not visited.
    path: the field names that lead there, "encoder/stack/block/attention"; the index for elements of a tuple.

  Returns:
    the module itself if nothing changed.
  """
  inner = lambda name: f"{path}/{name}" if path else str(name)
  if isinstance(module, tuple):
    new = tuple(replace_modules(part, change, inner(i)) for i, part in enumerate(module))
    return module if all(one is other for one, other in zip(new, module, strict=True)) else new
  new = change(module, path)
  if new is not module:
    return new
  values = {field.name: getattr(module, field.name) for field in dataclasses.fields(module) if field.name != "parent"}
  parts = {name: replace_modules(value, change, inner(name)) for name, value in values.items() if _has_modules(value)}
  parts = {name: part for name, part in parts.items() if part is not values[name]}
  return module.clone(**parts) if parts else module


def has_part(module, kind):
  """Whether the module, or a part of it at any depth, is of the class `kind`."""
  found = []

  def look(part, path):
    found.append(isinstance(part, kind))
    return part

  replace_modules(module, look)
  return any(found)


def _has_modules(value):
  if isinstance(value, tuple):
    return bool(value) and all(isinstance(part, nn.Module) for part in value)
  return isinstance(value, nn.Module)
