"""The train state of step 0: as initialised, or with the parameters of another model."""

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import numpy as np

from zoo.build import by_layer, merged, part_of, sizes_of
from zoo.config.schema import read_init, resolve
from zoo.errors import UserError
from zoo.hub.tensors import is_finite, to_host
from zoo.layers.stack import stack_layers
from zoo.saving import COMPUTING, load
from zoo.train.experiment import Experiment
from zoo.tree import check_pattern, flatten, matches_any, mismatch, unflatten, variables


def first_state(
  config: Any, experiment: Experiment, *, note: Callable[[str], Any] = lambda text: None
) -> dict[str, Any]:
  """The state of step 0, every array created in its sharding.

  Args:
    config: parameters are drawn from its `seed`, or taken from its `init`.
    experiment: of the config.
    note: called with the ignored parts of the source.
  """
  state = jax.jit(experiment.init, out_shardings=experiment.placed)(jax.random.key(config.seed))
  return load_into(resolve(config.init), state, experiment.model, note=note) if config.init else state


def load_into(
  source: str | os.PathLike | Mapping[str, Any],
  state: Mapping[str, Any],
  model: Any = None,
  *,
  note: Callable[[str], Any] = lambda text: None,
) -> dict[str, Any]:
  """`state` with `params` (and `ema`) loaded from another model, in the same shardings.

  A part (`pooler`, `head`: the first segment of a path; `image/projection`) that only one of them has is reported and
  ignored: of the model to train it starts as initialised, of the source it is left out. A part that both have must have
  equal shapes.

  Args:
    source: anything that `load` reads; or {"source": that, "fresh": [patterns of parameters that start as initialised
      though the source has them], "ignore": as of `load`, "into": the module of the model, such as "encoder", whose
      parameters these are; the others start as initialised}.
    state: with `params`.
    model: the model to train; if given, options that no shape shows (an activation, an epsilon) must agree with the
      source.
    note: called with the ignored parts.
  """
  where, fresh, ignore, into = read_init(source)
  origin, params = load(where, ignore=ignore)
  entries = {name: beside for name, beside in (("params", "shared"), ("ema", "ema_shared")) if name in state}
  begun = {name: {"params": state[name], **state.get(beside, {})} for name, beside in entries.items()}
  old, new = flatten(by_layer(params)), flatten(jax.eval_shape(by_layer, begun["params"]))
  collections = {*variables(params), *begun["params"]} - {"params"}
  whole_part = lambda path: part_of(path, collections)
  part, inner = lambda path: _part(path, collections), model
  if into is not None:
    old, inner = {f"{into}/{path}": array for path, array in old.items()}, _module(model, into, new)
    part = lambda path: path.split("/")[1] if path.startswith(f"{into}/") else f"{whole_part(path)} of the model"
  for pattern in fresh:
    check_pattern(pattern, list(new), "init.fresh")
  old = {path: array for path, array in old.items() if not matches_any(fresh, path)}
  parts = [set(map(part, paths)) for paths in (old, new)]
  both = parts[0] & parts[1]
  left_out = {path for path in old if part(path) not in both}
  fresh_paths = {path for path in new if part(path) not in both or matches_any(fresh, path)}
  actual = {path: array.shape for path, array in old.items() if path not in left_out}
  expected = {path: array.shape for path, array in new.items() if path not in fresh_paths}
  if actual != expected or not both:
    raise UserError(
      f"{where} holds another model than the one to train: "
      f"{mismatch(actual, expected) or 'they have no part in common'}."
    )
  _check_computes_alike(where, origin, inner)
  for path in sorted(old.keys() - left_out):
    if not is_finite(np.asarray(to_host(old[path]))):
      raise UserError(
        f"init {where}: values of {path} are not finite (nan or inf), so no step from them is. Take another."
      )
  for paths, what in ((fresh_paths, "start as initialised"), (left_out, f"of {where} are not used")):
    if paths:
      note(f"{', '.join(sorted(paths)[:6])}{', ...' if len(paths) > 6 else ''} {what}.")

  def filled(target):
    parts = set(map(whole_part, fresh_paths))
    arrays = {name: {part: x for part, x in tree.items() if part in parts} for name, tree in target.items()}
    arrays = flatten(by_layer(jax.tree.map(to_host, arrays)))
    flat = {path: arrays[path] if path in fresh_paths else old[path] for path in new}
    return stack_layers(unflatten(flat), merged(target))

  def place(new, old):
    # A copy for each: a donated state must not contain the same buffer twice.
    return jax.device_put(np.array(new, old.dtype), old.sharding)

  state = dict(state)
  for name, beside in entries.items():
    tree = jax.tree.map(place, filled(begun[name]), merged(begun[name]))
    if beside in state:
      state[beside] = {collection: tree.pop(collection) for collection in state[beside]}
    state[name] = tree
  return state


def _module(model: Any, name: str, paths: Mapping[str, Any]) -> Any:
  """The module `name` of a model, whose parameters are among `paths`; UserError if there is none."""
  if not any(path.startswith(f"{name}/") for path in paths):
    names = ", ".join(sorted({path.partition("/")[0] for path in paths}))
    raise UserError(f"init.into is {name!r}, which is no module of the model to train. It has: {names}.")
  return getattr(model, name, None)


def _part(path: str, collections: Collection[str]) -> str:
  """The top-level module of an array, or the projection of a tower, which a classifier of images lacks."""
  top = part_of(path, collections)
  return f"{top}/projection" if f"{top}/projection/" in path else top


def _check_computes_alike(where: Any, origin: Any, model: Any) -> None:
  if not getattr(model, "spec", None) or not origin.spec:
    return
  apart = (*COMPUTING, "head", "num_classes", "pooler")
  actual, expected = (
    {name: size for name, size in sizes_of(it).items() if name not in apart} for it in (origin, model)
  )
  other = [
    name
    for name in actual.keys() & expected.keys()
    if actual[name] != expected[name] and None not in (actual[name], expected[name])
  ]
  if other:
    name = min(other)
    raise UserError(f"{where} was trained with {name} {actual[name]!r}, the model to train has {expected[name]!r}.")
