"""Linen modules made of pure functions, for places that need a module."""

from typing import Any

import flax.linen as nn
import jax


class Functional(nn.Module):
  """A module defined by two pure functions, `initial` and `compute`, so that it can be a submodule of a Linen module.

  Subclasses define both. Their parameters may be any tree; its top-level names are those of
  `initial`'s, as if they were submodules.
  """

  @nn.compact
  def __call__(self, *args, **kwargs):
    """Calls `compute` with the module's parameters and these arguments."""
    if not self.has_variable("params", next(iter(self.names()))):
      for name, branch in self.initial(self.make_rng("params")).items():
        self.put_variable("params", name, branch)
    variables = self.variables
    rngs = {name: self.make_rng(name) for name in ("dropout",) if self.has_rng(name)}
    cache = dict(variables.get("cache", {}))
    out, cache = self.compute(variables["params"], cache, rngs, args, kwargs)
    if self.is_mutable_collection("cache"):
      for name, branch in cache.items():
        self.put_variable("cache", name, branch)
    return out

  @nn.nowrap
  def init(self, rngs: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """{"params": random parameters}; inputs are ignored."""
    return {"params": self.initial(rngs["params"] if isinstance(rngs, dict) else rngs)}

  @nn.nowrap
  def names(self):
    """The top-level names of the parameter tree."""
    raise NotImplementedError

  @nn.nowrap
  def initial(self, rng: jax.Array) -> dict[str, Any]:
    """Initial parameters from a key: a tree of arrays. Defined by subclasses."""
    raise NotImplementedError

  @nn.nowrap
  def compute(self, params: Any, cache: dict[str, Any], rngs: Any, args: tuple, kwargs: dict) -> tuple[Any, dict]:
    """-> the output of a call, and the updated collection "cache"; `cache` is {} without one."""
    raise NotImplementedError
