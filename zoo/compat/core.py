"""The core of an old module: a model of the zoo on parameter trees with old names."""

import concurrent.futures
import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.build import shapes_of
from zoo.compat import attending
from zoo.compat.outputs import Output, ordered
from zoo.convert.rules.layouts import Rule
from zoo.errors import UserError
from zoo.hub import tables
from zoo.hub.msgpack import flax_rules
from zoo.models.cross_decoders import without_cross_attention
from zoo.tree import flatten, mismatch, unflatten


class Tower(NamedTuple):
  """Source and destination of a tower's hidden states and attentions.

  place: the entry of the outputs that receives them; "": the outputs themselves.
  part: the submodule with the layers; "": the model itself.
  prefix: prefix of their names: "encoder_".
  last: the submodule whose output replaces the last hidden state, a norm; "": none.
  cross: whether its layers have cross-attention.
  """

  place: str = ""
  part: str = ""
  prefix: str = ""
  last: str = ""
  cross: bool = False


class Core:
  """A model and its functions on parameter trees with old names.

  Args:
    model: from the zoo, with its layers in a loop.
    table: a conversion table, like those of `zoo.convert`.
    torch: the rules of all its arrays, with torch's names.
    names: [(regular expression, replacement)] from torch's names to the old ones.
    unused: patterns of old names that only the zoo's model has.
  """

  def __init__(
    self, model: Any, table: Any, torch: Sequence[Rule], names: Sequence[tuple[str, str]], unused: Sequence[str]
  ):
    self.model, self.table, self.torch = model, table, list(torch)
    rules = flax_rules(rule._replace(theirs=renamed(rule.theirs, names)) for rule in torch)
    self.rules = [rule for rule in rules if not any(re.match(pattern, rule.theirs) for pattern in unused)]
    self.spare = [rule for rule in rules if rule not in self.rules]
    # Compiled, as kernels have other shapes: reshapes are free inside a program, but copies outside.
    self.compiled = jax.jit(self._pure, static_argnames=("run", "towers", "train", "attentions", "hidden"))
    # Every access creates a new bound method, for which jit would compile again.
    self.to_ours = jax.jit(self.ours)

  @functools.cached_property
  def shapes(self) -> dict[str, tuple[int, ...]]:
    """Shapes by our paths."""
    return {path: leaf.shape for path, leaf in flatten(shapes_of(self.model)).items()}

  @functools.cached_property
  def old_shapes(self) -> dict[str, tuple[int, ...]]:
    """Shapes by paths in the old tree."""
    return {rule.theirs: rule.shape(self.shapes[rule.ours]) for rule in self.rules}

  @functools.cached_property
  def writer(self) -> Any:
    """The model for `zoo.generate`, without cross-attention if it is a decoder."""
    return self.model if hasattr(self.model, "encode") else without_cross_attention(self.model)

  def initial(self, rng: jax.Array) -> dict[str, Any]:
    """Random float32 parameters under the old names, from a key, in the shapes of the old classes.

    It is not compiled as one program, which takes half a minute for 24 layers.
    """
    return self.old(self.model.init(rng, *self.model.example())["params"])

  def old(self, params: Any) -> dict[str, Any]:
    """Converts parameters of the zoo to the tree with old names. Can be traced by JAX."""
    flat = flatten(params)
    del params  # Each array is freed after its copy: two copies of a large model would not fit.
    tree: dict[str, Any] = {}
    for theirs, rules in tables.by_theirs(self.rules).items():
      parts = [rule.layout.write(flat.pop(rule.ours)) for rule in rules]
      axis = rules[0].stretch[0] if rules[0].stretch else 0
      tree[theirs] = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis)
    return unflatten(tree)

  def ours(self, tree: Any) -> dict[str, Any]:
    """Inverse of `old`. Unknown entries are ignored, as in Linen.

    Raises:
      UserError: parameters are missing or misshapen.
    """
    arrays, shapes = flatten(tree), self.old_shapes
    problems = mismatch({name: arrays[name].shape for name in arrays.keys() & shapes.keys()}, shapes)
    if problems:
      raise UserError(f"params are not those of this {self.model.spec.get('family', 'model')}: {problems}.")
    read = {rule.ours: rule.read(arrays[rule.theirs], self.shapes[rule.ours]) for rule in self.rules}
    dtype = jnp.result_type(*arrays.values())
    return unflatten(read | {rule.ours: jnp.zeros(self.shapes[rule.ours], dtype) for rule in self.spare})

  def empty_cache(self, run: Callable, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """An empty cache for the length of `inputs`, [batch, length]."""
    call = dict(method=lambda model: run(model, inputs, False), mutable=["cache"])
    _, state = jax.eval_shape(lambda params: self.writer.apply({"params": params}, **call), shapes_of(self.model))

    def empty(path, leaf):
      return jnp.full(leaf.shape, -1 if path[-1].key.endswith("positions") else 0, leaf.dtype)

    layers = jax.tree_util.tree_map_with_path(empty, _own(state.get("cache", {})))
    return {"layers": layers, "index": jnp.int32(0)}

  def _pure(self, params, cache, rngs, inputs, *, run, towers, train, attentions, hidden):
    variables, mutable, watched = {"params": self.ours(params)}, [], {}
    model = attending.seen_in_order(self.model, cache["index"] if cache else None)
    inputs = dict(inputs)
    model = attending.with_heads(model, inputs.pop("head_mask", None))
    model = attending.reading(model, inputs)
    if cache:
      variables["cache"], mutable = cache["layers"], ["cache"]
      length = inputs["decoder_tokens" if "decoder_tokens" in inputs else "tokens"].shape[1]
      inputs = _in_cache(inputs, cache["index"])
    _check_masks(inputs)
    if attentions or hidden:
      mutable = [*mutable, "intermediates"]
      watched = dict(capture_intermediates=_is_watched)
    call = dict(method=lambda model: run(model, inputs, train), rngs=rngs, mutable=mutable or False, **watched)
    out, state = model.apply(variables, **call) if mutable else (model.apply(variables, **call), {})
    for tower in towers if watched else ():
      _put_states(out, state["intermediates"], tower, attentions, hidden)
    if cache:
      cache = {"layers": _own(state.get("cache", {})), "index": cache["index"] + length}
      out["past_key_values"] = cache
    return _output(out), cache


def _check_masks(inputs):
  for name, what in (("", "attention_mask"), ("decoder_", "decoder_attention_mask")):
    tokens, valid = inputs.get(f"{name}tokens"), inputs.get(f"{name}valid")
    if tokens is not None and valid is not None and valid.shape != tokens.shape:
      raise UserError(
        f"{what} is {list(valid.shape)}, input_ids are {list(tokens.shape)}. The mask has one number per token."
      )


def _in_cache(inputs, index):
  """The inputs, with the mask of the full cache sliced to these tokens."""
  name = "decoder_" if "decoder_tokens" in inputs else ""
  inputs, length = {**inputs}, inputs[f"{name}tokens"].shape[1]
  valid, positions = inputs.get(f"{name}valid"), inputs.get(f"{name}positions")
  if valid is not None and valid.shape[1] != length:
    inputs[f"{name}valid"] = jax.lax.dynamic_slice_in_dim(valid, index, length, 1)
  if positions is None:
    inputs[f"{name}positions"] = (index + jnp.arange(length))[None]
  return inputs


def _own(tree):
  """The cache without cross-attention keys and values, which are recomputed in each call, as in old models."""
  return (
    {name: _own(branch) for name, branch in tree.items() if name != "cross_attention"}
    if isinstance(tree, dict)
    else tree
  )


def _put_states(out, intermediates, tower, attentions, hidden):
  place = out[tower.place] if tower.place else out
  captured = intermediates
  for part in tower.part.split("/") if tower.part else ():
    if part not in captured:  # Only the decoder or only the encoder ran.
      return
    captured = captured[part]
  stack = captured.get("stack", {})
  layers = [stack[f"layer_{i}"] for i in range(len(stack))]
  if hidden:
    states = [layer["__call__"][0] for layer in layers]
    states = [*states[:-1], captured[tower.last]["__call__"][0]] if tower.last else states
    first = [captured["Dropout_0"]["__call__"][0]] if layers else []  # Without layers only the norm's output.
    place[f"{tower.prefix}hidden_states"] = (*first, *states)
  if attentions:
    place[f"{tower.prefix}attentions"] = tuple(layer["self_attention"]["weights"][0] for layer in layers)
    if tower.cross and layers and "cross_attention" in layers[0]:
      place["cross_attentions"] = tuple(layer["cross_attention"]["weights"][0] for layer in layers)


def _is_watched(module: Any, method: str) -> bool:
  """Whether a module's output is a hidden state: that of the first dropout, of a layer, or of the final norm."""
  return method == "__call__" and re.fullmatch(r"Dropout_0|norm|layer_\d+", module.name or "") is not None


def _output(out: Any) -> Any:
  return Output(ordered({name: _output(x) for name, x in out.items()})) if _is_output(out) else out


def _is_output(out: Any) -> bool:
  return isinstance(out, dict) and "layers" not in out  # The second element is a cache.


@functools.lru_cache(maxsize=64)
def core_of(parts: Callable, sizes: str, unused: tuple[str, ...], dtype: str, remat: str | None) -> Core:
  """The cached core for these sizes (JSON), with its compiled programs.

  parts: (sizes, compute options) -> the model, its conversion table, and names: from torch's to the old ones.
  """
  # Modules created inside a Linen module become its submodules, but not in another thread.
  with concurrent.futures.ThreadPoolExecutor(1) as outside:
    return outside.submit(_core, parts, json.loads(sizes), unused, dtype, remat).result()


def _core(parts, sizes, unused, dtype, remat):
  # A loop, as old names number the layers: a scan would copy all of them in each call.
  model, table, names = parts(sizes, {"dtype": dtype, "scan": False, "remat": remat})
  return Core(model, table, table.rules(sizes), names, unused)


def renamed(name: str, names: Sequence[tuple[str, str]]) -> str:
  """Converts a torch name to that of old Flax models."""
  return functools.reduce(lambda name, change: re.sub(*change, name), names, name)
