"""`model.module` of an old model: `apply` and `init` as Linen has them, on trees in the old names."""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.build import shapes_of
from zoo.compat.outputs import Output
from zoo.errors import UserError, shown
from zoo.layouts import Rule
from zoo.mismatch import mismatch
from zoo.paths import flatten, unflatten


class Call(NamedTuple):
  """A call of an old module, understood: what the model is given, and what to return."""

  inputs: dict[str, jax.Array | None]
  deterministic: bool = True
  output_attentions: bool | None = False
  output_hidden_states: bool | None = False
  return_dict: bool | None = True


class Module:
  """A model of the zoo that is called as an old Flax module.

  Args:
    model: of the zoo, its layers in a loop.
    rules: of `zoo.hub.msgpack.flax_rules`.
    arguments: an old module's positional arguments -> Call.
    run: (model, inputs, train) -> outputs by their old names.
    towers: where in the outputs hidden states and attentions go -> the part of the model that has them.
    last_is_normed: whether the last hidden state is after the final norm.
    config: what flags that are None default to.
  """

  def __init__(
    self,
    model: Any,
    rules: list[Rule],
    arguments: Callable[..., Call],
    run: Callable,
    towers: Mapping[str, str],
    last_is_normed: bool,
    config: Any,
  ):
    self.model, self.rules, self.arguments, self.run = model, rules, arguments, run
    self.towers, self.last_is_normed, self.config = towers, last_is_normed, config
    # Compiled, for a kernel is another shape there: reshaping costs nothing in a program, and a copy outside of one.
    self._compiled = jax.jit(self._pure, static_argnames=("run", "train", "attentions", "hidden"))

  def apply(
    self, variables: Mapping[str, Any], *args: Any, rngs: Any = None, method: Any = None, mutable: Any = False, **kwargs
  ) -> Any:
    """The old module's `apply`: a pure function, for jit, grad, vmap and pmap.

    Args:
      variables: {"params": tree in the old names}; of other dtypes than it was loaded with, if you like.
      *args, **kwargs: the old module's arguments in their old order. Images are [batch, height, width, channels].
      rngs: {"dropout": key}, where deterministic=False.

    Returns:
      an Output, or a tuple with return_dict=False.

    Raises:
      UserError: parameters are missing or misshapen, or something is asked for that the zoo does not have.
    """
    if method is not None or mutable or variables.keys() != {"params"}:
      raise UserError("apply takes {'params': ...} and calls the module: leave out method, mutable, other collections.")
    return self.call(variables["params"], self.arguments(*args, **kwargs), rngs)

  def call(self, params: Any, call: Call, rngs: Any = None, run: Callable | None = None) -> Any:
    """As `apply`, of a call that is understood; `run` may be another one."""
    attentions, hidden, as_output = (
      getattr(self.config, name) if flag is None else flag
      for name, flag in zip(("output_attentions", "output_hidden_states", "return_dict"), call[2:])
    )
    given = dict(train=not call.deterministic, attentions=bool(attentions), hidden=bool(hidden))
    out = self._compiled(_plain(params), rngs or {}, call.inputs, run=run or self.run, **given)
    return out if as_output or not isinstance(out, Output) else out.to_tuple()

  def init(self, rngs: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """{"params": random parameters in the old names}; inputs change nothing, shapes are those of the config."""
    rng = rngs["params"] if isinstance(rngs, Mapping) else rngs
    return {"params": self.initial(rng)}

  def initial(self, rng: jax.Array) -> dict[str, Any]:
    """Random parameters in the old names; not compiled as a whole, which takes half a minute for 24 layers."""
    return self.old(self.model.init(rng, *self.model.example())["params"])

  @functools.cached_property
  def shapes(self) -> dict[str, tuple[int, ...]]:
    """Our path -> shape."""
    return {path: leaf.shape for path, leaf in flatten(shapes_of(self.model)).items()}

  def old(self, params: Any) -> dict[str, Any]:
    """Parameters of the zoo -> the tree in the old names. Nothing is computed; it is a function that JAX can trace."""
    flat = flatten(params)
    del params  # Each array goes as its copy comes: there is no room for two of a large model.
    return unflatten({rule.theirs: rule.layout.write(flat.pop(rule.ours)) for rule in self.rules})

  def ours(self, tree: Any) -> dict[str, Any]:
    """The way back. What the model does not have is left out, as Linen does.

    Raises:
      UserError: parameters are missing or misshapen.
    """
    found = flatten(tree)
    wanted = {rule.theirs: rule.shape(self.shapes[rule.ours]) for rule in self.rules}
    problems = mismatch({name: found[name].shape for name in found.keys() & wanted.keys()}, wanted)
    if problems:
      raise UserError(f"params are not those of this {self.model.spec['family']}: {problems}.")
    read = {rule.ours: rule.layout.read(found[rule.theirs], self.shapes[rule.ours]) for rule in self.rules}
    return unflatten(read)

  def _pure(self, params, rngs, inputs, *, run, train, attentions, hidden):
    variables = {"params": self.ours(params)}
    given = dict(method=lambda model: run(model, inputs, train), rngs=rngs)
    if not attentions and not hidden:
      return _output(self.model.apply(variables, **given))
    watched = dict(capture_intermediates=_is_watched, mutable=["intermediates"])
    out, state = self.model.apply(variables, **given, **watched)
    for key, tower in self.towers.items():
      seen, place = state["intermediates"], out[key] if key else out
      seen = seen[tower] if tower else seen
      layers = [seen["stack"][f"layer_{i}"] for i in range(len(seen["stack"]))]
      if hidden:
        states = [layer["__call__"][0] for layer in layers]
        states = [*states[:-1], place["last_hidden_state"]] if self.last_is_normed else states
        place["hidden_states"] = (seen["Dropout_0"]["__call__"][0], *states)
      if attentions:
        place["attentions"] = tuple(layer["self_attention"]["weights"][0] for layer in layers)
    return _output(out)


def token_inputs(input_ids: Any, attention_mask: Any, position_ids: Any) -> dict[str, jax.Array | None]:
  """The old arrays of a text as the zoo has them: int32 tokens, bool valid, int32 positions.

  Raises:
    UserError: the mask is not one number per token.
  """
  tokens = jnp.asarray(input_ids, jnp.int32)
  valid = None if attention_mask is None else jnp.asarray(attention_mask) > 0
  if valid is not None and valid.shape != tokens.shape:
    raise UserError(
      f"attention_mask is {list(valid.shape)}, input_ids are {list(tokens.shape)}. The mask has one number per token."
    )
  positions = None if position_ids is None else jnp.atleast_2d(jnp.asarray(position_ids, jnp.int32))
  return {"tokens": tokens, "valid": valid, "positions": positions}


def refuse(**given: Any) -> None:
  """Refuses old arguments that are given and that the zoo does not have."""
  for name, value in given.items():
    if value is not None and value is not False:
      raise UserError(f"{name} is {shown(value, 40)}, which the zoo's models do not have. Leave it out.")


def _is_watched(module: Any, method: str) -> bool:
  """What goes into the first layer is what a dropout gave, and the output of each layer goes into the next."""
  return method == "__call__" and re.fullmatch(r"Dropout_0|layer_\d+", module.name or "") is not None


def _output(out: Any) -> Any:
  return Output({name: _output(x) for name, x in out.items()}) if isinstance(out, dict) else out


def _plain(tree: Any) -> Any:
  """Dicts all the way down, of whatever mappings a tree is made."""
  return {name: _plain(branch) for name, branch in tree.items()} if isinstance(tree, Mapping) else tree
