"""A published model becomes ours: its config is understood in full, its tensors go one by one to their shards."""

import functools
import pathlib
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from zoo import sharding
from zoo.build import build, shapes_of, sizes_of
from zoo.errors import UserError
from zoo.hub import tables
from zoo.hub.files import CONFIG, open_tensors, read_json
from zoo.layers.stack import place_of, unstack_layers
from zoo.mismatch import mismatch
from zoo.options import Options
from zoo.paths import flatten, unflatten


def load_published(
  folder: pathlib.Path, *, head: str | None, dtype: Any, mesh: Mesh | None, strategy: str | list
) -> tuple[Any, Any]:
  """The model in a folder of the hub's layout, and its parameters. See `zoo.load`."""
  where = str(folder / CONFIG)
  config = read_json(folder / CONFIG)
  table = tables.of_model_type(config.get("model_type"), where)
  wanted = tables.choose_head(table, config, head, where)
  tensors = open_tensors(folder)
  options = Options(config, where, len(tensors))
  sizes = table.sizes(options, wanted, tensors)
  options.done()
  model = build(tables.family_of(table), **sizes)
  return model, read_params(tensors, table, model, str(folder), dtype, mesh, strategy, fresh_head=head is not None)


def read_params(
  tensors: Any,
  table: ModuleType,
  model: Any,
  where: str,
  dtype: Any = None,
  mesh: Mesh | None = None,
  strategy: str | list = "replicated",
  *,
  fresh_head: bool = False,
) -> Any:
  """The parameters of `model` from published tensors.

  Args:
    tensors: name -> array, read when asked for.
    table: of zoo/convert.
    model: from `zoo.build`.
    where: what to call the files in a message.
    dtype: of the parameters; float32 if None.
    mesh, strategy: where they go; to the first device without a mesh.
    fresh_head: whether a head of which the files have nothing is initialised, with a warning.

  Raises:
    UserError: tensors are missing, extra or misshapen, or differ where they must be equal.
  """
  shapes = shapes_of(model)
  each = {name: leaf.shape for name, leaf in flatten(jax.eval_shape(unstack_layers, shapes)).items()}
  sizes = sizes_of(model)
  rules = tables.by_ours(table.rules(sizes))
  found = tables.canonical(tensors, table, where)
  fresh = _without_tensors(rules, found, table, sizes) if fresh_head else set()
  if fresh:
    warnings.warn(f"{where} has no {', '.join(sorted(fresh))}: initialised at random. Train before use.", stacklevel=3)
  names = _check(rules, each, found, tensors, table, sizes, where, fresh)

  read = _remembering_one(tensors)
  kind = np.dtype(np.float32) if dtype is None else jnp.dtype(dtype)

  def fetch(path: str) -> np.ndarray:
    parts = rules[path]
    if parts[0].index is None:
      array = parts[0].read(read(names[parts[0].theirs]), each[path])
      return np.asarray(array, kind, order="C")
    whole = np.empty(each[path], kind)
    for rule in parts:
      whole[rule.index] = rule.read(read(names[rule.theirs]), each[path])
    return whole

  flat = flatten(shapes)
  where_to = _placements(shapes, mesh, strategy)
  made = _initial(model, fresh, kind)
  # Neighbours in the files are read one after the other: those that share a tensor read it once.
  order = sorted(each, key=lambda path: rules[path][0].theirs if path in rules else "")
  placed: dict[str, jax.Array] = {}
  for path in order:
    target, layer = place_of(path, flat)
    array = made[path] if path in made else fetch(path)
    if layer is None:
      placed[target] = _put(array, where_to[target])
    else:
      _put_layer(placed, target, array, layer, flat[target].shape, where_to[target])
  return unflatten({name: placed[name] for name in flat})


def _check(rules, each, found, tensors, table, sizes, where, fresh) -> dict[str, str]:
  """theirs by the table -> name in the file, once everything is there, of the right shape, and nothing is left over."""
  names: dict[str, str] = {}
  wanted: dict[str, tuple[int, ...]] = {}
  every = _all_names(table, sizes)
  for path, shape in each.items():
    if path not in rules:
      raise AssertionError(f"zoo/convert/{tables.family_of(table)}.py has no rule for {path}.")
    for rule in rules[path] if path not in fresh else ():
      spelling = tables.lookup(rule.theirs, found, table, every)
      names[rule.theirs] = found[spelling] if spelling else rule.theirs
      wanted[names[rule.theirs]] = rule.shape(shape)
  has = {name: tensors.shapes[name] for name in found.values()}
  known = {spelling for name in every if (spelling := tables.lookup(name, found, table, every))}
  spare = {found[name] for name in known | _repeats(table, found) | _spare(table, found)} - wanted.keys()
  problems = mismatch({name: shape for name, shape in has.items() if name not in spare}, wanted, most=8)
  if problems:
    raise UserError(f"{where} does not hold a whole {tables.family_of(table)}: {problems}.")
  _check_tied(table, found, tensors, where, every)
  return names


def _all_names(table, sizes) -> set[str]:
  """What the classes of other heads save too: nobody asked for it, and it is no mistake."""
  return {rule.theirs for head in table.HEADS for rule in table.rules(tables.with_head(table, sizes, head))}


def _repeats(table, found) -> set[str]:
  return {name for repeat in tables.tied(table) for name in tables.spellings(repeat, table)} & set(found)


def _spare(table, found) -> set[str]:
  return {name for name in getattr(table, "SPARE", ()) if name in found}


def _check_tied(table, found, tensors, where, every) -> None:
  for repeat, original in tables.tied(table).items():
    if repeat in every:  # Of these sizes it is an array of its own.
      continue
    first, second = tables.lookup(original, found, table), repeat if repeat in found else None
    if second and first and first != second and not np.array_equal(tensors[found[first]], tensors[found[second]]):
      raise UserError(
        f"{where}: '{found[second]}' differs from '{found[first]}', and in a {tables.family_of(table)} of the zoo they "
        "are one array."
      )


def _without_tensors(rules, found, table, sizes) -> set[str]:
  """The paths of parts that not every head has and of which the files have nothing at all."""
  each = ({rule.ours for rule in table.rules(tables.with_head(table, sizes, head))} for head in table.HEADS)
  core = set.intersection(*each)
  parts: dict[str, list[str]] = {}
  for path in rules.keys() - core:
    parts.setdefault(path.partition("/")[0], []).append(path)

  def has(path: str) -> bool:
    return any(tables.lookup(rule.theirs, found, table) for rule in rules[path])

  return {path for paths in parts.values() if not any(map(has, paths)) for path in paths}


def _initial(model, paths, kind) -> dict[str, np.ndarray]:
  """Initial values of some parameters, those of seed 0; the others are not computed."""
  if not paths:
    return {}

  def some(rng):
    flat = flatten(unstack_layers(model.init(rng, *model.example())["params"]))
    return {path: flat[path].astype(kind) for path in paths}

  return {path: np.asarray(array) for path, array in jax.jit(some)(jax.random.key(0)).items()}


def _remembering_one(tensors: Mapping[str, np.ndarray]) -> Callable[[str], np.ndarray]:
  last: dict[str, np.ndarray] = {}

  def read(name: str) -> np.ndarray:
    if name not in last:
      last.clear()
      last[name] = tensors[name]
    return last[name]

  return read


def _placements(shapes: Any, mesh: Mesh | None, strategy: str | list) -> dict[str, Any]:
  if mesh is None:
    return dict.fromkeys(flatten(shapes), SingleDeviceSharding(jax.devices()[0]))
  return flatten(sharding.shardings(shapes, strategy, mesh))


def _put(array: np.ndarray, place: Any) -> jax.Array:
  return jax.make_array_from_callback(array.shape, place, lambda index: array[index])


def _put_layer(placed, target, array, layer, shape, place) -> None:
  """One layer of a scanned stack is written into the leaf where it lives, in place: the leaf is never held twice."""
  part = place
  if isinstance(place, NamedSharding):
    part = NamedSharding(place.mesh, PartitionSpec(*place.spec[1:]))
  if target not in placed:
    placed[target] = jax.jit(jnp.zeros, static_argnums=(0, 1), out_shardings=place)(shape, array.dtype)
  placed[target] = _writer(place)(placed[target], _put(array, part), layer, 0)
  # A step at a time: writes in flight would each hold their layer.
  placed[target].block_until_ready()


@functools.cache
def _writer(place: Any) -> Callable:
  return jax.jit(jax.lax.dynamic_update_index_in_dim, static_argnums=3, donate_argnums=0, out_shardings=place)
