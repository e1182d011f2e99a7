"""The zoo: Transformer families in pure functional JAX.

build(family, variant=None, **sizes)    a model
list_models(pattern="*")                the published variants, with their parameter counts
load(folder), save(folder, ...)         a model and its parameters, from and to disk
generate(model, params, tokens, ...)    text, token by token
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from zoo.build import build, list_models
  from zoo.generate import generate
  from zoo.saving import load, save

_HOME = {
  "build": "zoo.build",
  "list_models": "zoo.build",
  "load": "zoo.saving",
  "save": "zoo.saving",
  "generate": "zoo.generate",
}
__all__ = ["build", "generate", "list_models", "load", "save"]


def __getattr__(name):
  # Lazily, so that `import zoo` costs nothing.
  if name not in _HOME:
    raise AttributeError(f"module 'zoo' has no attribute '{name}'")
  value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
  return value


def __dir__():
  return sorted([*globals(), *__all__])


class _Zoo(types.ModuleType):
  """Python binds a submodule to its package once it is imported; `zoo.build` and `zoo.generate` stay the functions."""

  def __setattr__(self, name, value):
    if not (name in _HOME and isinstance(value, types.ModuleType)):
      super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Zoo
