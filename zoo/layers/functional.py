"""A pure function of parameters as a Linen module, to stand where a module is asked for."""

from typing import Any

import flax.linen as nn
import jax


class Functional(nn.Module):
  """A module whose parameters and outputs two functions make, so that it can be a part of a Linen module.

  Subclasses define `initial` and `compute`. Their parameters may be any tree; at the top its names are those of
  `initial`'s, as though the module had submodules so called.
  """

  @nn.compact
  def __call__(self, *args, **kwargs):
    """What `compute` makes of the module's parameters and these arguments."""
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
    """{"params": random parameters}; inputs change nothing, and nothing is computed of them."""
    return {"params": self.initial(rngs["params"] if isinstance(rngs, dict) else rngs)}

  @nn.nowrap
  def names(self):
    """The names at the top of the parameters' tree."""
    raise NotImplementedError

  @nn.nowrap
  def initial(self, rng: jax.Array) -> dict[str, Any]:
    """A random tree of parameters."""
    raise NotImplementedError

  @nn.nowrap
  def compute(self, params: Any, cache: dict[str, Any], rngs: Any, args: tuple, kwargs: dict) -> tuple[Any, dict]:
    """What a call returns, and the collection "cache" after it; `cache` is {} where nothing was kept."""
    raise NotImplementedError
