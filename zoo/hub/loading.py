"""Loads published models: interprets every config entry, and puts tensors one by one into their shards."""

import concurrent.futures
import contextlib
import itertools
import pathlib
import warnings
from collections.abc import Callable, Collection, Generator, Iterable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from zoo.build import build, by_layer, of_collections, part_of, sizes_of, split, weights_of
from zoo.convert.rules import reference
from zoo.convert.rules.options import Options, check_ignored
from zoo.errors import UserError
from zoo.hub import open_clip, open_clip_images, open_clip_siglip, preprocessing, tables, unread
from zoo.hub.files import CONFIG, open_tensors, read_json
from zoo.hub.labels import list_of_classes
from zoo.hub.placing import ShardedParams
from zoo.hub.tensors import is_finite, warn_not_finite
from zoo.tree import flatten, mismatch, variables

QUANTIZED = "quantization_config"


def load_published(
  folder: pathlib.Path,
  *,
  head: str | None,
  dtype: Any,
  mesh: Mesh | None,
  strategy: str | list,
  ignore: Collection[str] = (),
) -> tuple[Any, Any]:
  """Loads the model and parameters in a folder of the hub's layout. See `zoo.load`."""
  model, table, tensors = published_model(folder, head=head, ignore=ignore)
  return model, read_params(tensors, table, model, str(folder), dtype, mesh, strategy, fresh_head=head is not None)


def published_model(
  folder: pathlib.Path, *, head: str | None = None, ignore: Collection[str] = ()
) -> tuple[Any, ModuleType, Any]:
  """Opens a folder of the hub's layout: the model, its conversion table, and its lazy tensors.

  head, ignore: as in `zoo.load`.
  """
  where = str(folder / CONFIG)
  config = read_json(folder / CONFIG)
  table = tables.of_model_type(config.get("model_type"), where)
  chosen_head = tables.choose_head(table, config, head, where)
  if config.get(QUANTIZED) is not None and QUANTIZED not in ignore:
    raise UserError(
      f"{where} has a {QUANTIZED}: quantised weights are not supported. Take the folder of float weights."
    )
  tensors = open_tensors(folder)
  check_ignored(ignore, {where: config} | (preprocessing.processor_entries(folder) if ignore else {}))
  options = Options(config, where, len(tensors), reference=reference.of(config["model_type"]), ignore=ignore)
  sizes = table.sizes(options, chosen_head, tensors)
  options.done()
  if head is None and not config.get("architectures"):
    unread.warn_of_left_out_head(table, sizes, tensors.shapes, where)
  carried = preprocessing.preprocessing_of_published(folder, config, ignore)
  names = list_of_classes(config.get("id2label"), sizes.get("num_classes"))
  carried |= {} if names is None else {"classes": names}
  return build(tables.family_of(table), **sizes, preprocessing=carried), table, tensors


def load_open_clip(
  folder: pathlib.Path,
  *,
  head: str | None,
  dtype: Any,
  mesh: Mesh | None,
  strategy: str | list,
  ignore: Collection[str] = (),
) -> tuple[Any, Any]:
  """Loads the CLIP or SigLIP in a folder of open_clip, with its parameters. See `zoo.load`."""
  where = str(folder / open_clip_images.CONFIG)
  config = read_json(folder / open_clip_images.CONFIG)
  tables.choose_head(open_clip, {}, head, where)
  check_ignored(ignore, {where: config})
  tensors = open_clip.open_weights(folder)
  options = Options(config, where, len(tensors), ignore=ignore, may_ignore=True)
  carried = open_clip_images.preprocessing_of(folder, ignore)
  if open_clip_siglip.timm_tower(options.entries) is None:
    table: ModuleType = open_clip
    model = build("clip", **open_clip.sizes(options), preprocessing=carried)
  else:
    table, carried = open_clip_siglip, {**carried, "text": {"mask": False}}
    model = build("siglip", **open_clip_siglip.sizes(options, tensors), preprocessing=carried)
  return model, read_params(tensors, table, model, str(folder), dtype, mesh, strategy)


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
  """Reads the parameters of `model` from published tensors, with its shared collections if it has any.

  Args:
    tensors: name -> array, read lazily.
    table: conversion table of zoo/convert.
    model: from `zoo.build`.
    where: name of the files in messages.
    dtype: of the parameters; float32 if None.
    mesh, strategy: their sharding; the first device without a mesh.
    fresh_head: whether a head that is missing from the files is initialised, with a warning.

  Raises:
    UserError: tensors are missing, extra or misshapen, or tied ones differ.

  Warns:
    of values that are not finite.
  """
  weights = weights_of(model)
  target_shapes = {name: leaf.shape for name, leaf in flatten(jax.eval_shape(by_layer, weights)).items()}
  sizes = sizes_of(model)
  rules = tables.by_ours(table.rules(sizes))
  file_names = tables.canonical(tensors, table, where)
  collections = variables(weights).keys() - {"params"}
  fresh = _without_tensors(rules, file_names, table, sizes, collections) if fresh_head else set()
  if fresh:
    warnings.warn(f"{where} has no {', '.join(sorted(fresh))}: initialised at random. Train before use.", stacklevel=3)
  names = _check(rules, target_shapes, file_names, tensors, table, sizes, where, fresh)

  kind = np.dtype(np.float32) if dtype is None else jnp.dtype(dtype)
  placed = ShardedParams(weights, kind, mesh, strategy)
  for path, array in _initial(model, fresh).items():
    placed.put(path, array)
  # Sorted by file name, so that arrays that share a tensor read it once.
  order = sorted(target_shapes.keys() - fresh, key=lambda path: rules[path][0].theirs)
  not_finite: list[str] = []

  def checked(name: str) -> np.ndarray:
    tensor = tensors[name]
    not_finite.extend([] if is_finite(tensor) else [name])
    return tensor

  with _prefetched(checked, [names[rule.theirs] for path in order for rule in rules[path]]) as read:
    for path in order:
      first, *more = rules[path]
      if first.index is None:
        placed.put(path, first.part(read(names[first.theirs]), target_shapes[path]), first.layout)
        continue
      full = np.empty(target_shapes[path], kind)  # Stacked experts are parameters.
      for rule in (first, *more):
        full[rule.index] = rule.read(read(names[rule.theirs]), target_shapes[path])
      placed.put(path, full)
  warn_not_finite(where, not_finite)
  return split(placed.tree(), model)


def _check(rules, target_shapes, file_names, tensors, table, sizes, where, fresh) -> dict[str, str]:
  """Matches names of the table with names in the file; UserError for missing, misshapen or extra tensors."""
  names: dict[str, str] = {}
  expected: dict[str, tuple[int, ...]] = {}
  all_names = unread.all_names(table, sizes)
  for path, shape in target_shapes.items():
    if path not in rules:
      raise AssertionError(f"zoo/convert/{tables.family_of(table)}.py has no rule for {path}.")
    for rule in rules[path] if path not in fresh else ():
      spelling = tables.lookup(rule.theirs, file_names, table, all_names)
      names[rule.theirs] = file_names[spelling] if spelling else rule.theirs
      expected[names[rule.theirs]] = rule.shape(shape)
  present = {name: tensors.shapes[name] for name in file_names.values()}
  known_spellings = {spelling for name in all_names if (spelling := tables.lookup(name, file_names, table, all_names))}
  spare = {
    file_names[name] for name in known_spellings | _repeats(table, file_names) | _spare(table, file_names)
  } - expected.keys()
  problems = mismatch({name: shape for name, shape in present.items() if name not in spare}, expected, most=8)
  if problems:
    raise UserError(f"{where} does not hold a complete {tables.family_of(table)}: {problems}.")
  _check_tied(table, file_names, tensors, where, all_names)
  unread.check_repetitions(table, names, file_names, tensors, where)
  return names


def _repeats(table, file_names) -> set[str]:
  return {name for repeat in tables.tied(table) for name in tables.spellings(repeat, table)} & set(file_names)


def _spare(table, file_names) -> set[str]:
  return {name for name in getattr(table, "SPARE", ()) if name in file_names}


def _check_tied(table, names, tensors, where, all_names) -> None:
  for repeat, original in tables.tied(table).items():
    if repeat in all_names:  # Not tied with these sizes.
      continue
    first, second = tables.lookup(original, names, table), repeat if repeat in names else None
    if second and first and first != second and not np.array_equal(tensors[names[first]], tensors[names[second]]):
      raise UserError(
        f"{where}: '{names[second]}' differs from '{names[first]}', but a {tables.family_of(table)} of the zoo ties "
        "them."
      )


def _without_tensors(rules, file_names, table, sizes, collections) -> set[str]:
  """Paths of head-specific parts that are missing from the files entirely."""
  paths_by_head = ({rule.ours for rule in table.rules(tables.with_head(table, sizes, head))} for head in table.HEADS)
  core = set.intersection(*paths_by_head)
  parts: dict[str, list[str]] = {}
  for path in rules.keys() - core:
    parts.setdefault(part_of(path, collections), []).append(path)

  def is_present(path: str) -> bool:
    return any(tables.lookup(rule.theirs, file_names, table) for rule in rules[path])

  return {path for paths in parts.values() if not any(map(is_present, paths)) for path in paths}


def _initial(model, paths) -> dict[str, np.ndarray]:
  """Initialises some parameters, with seed 0; the others are not computed."""
  if not paths:
    return {}

  def some(rng):
    flat = flatten(by_layer(of_collections(model.init(rng, *model.example()), model)))
    return {path: flat[path] for path in paths}

  return {path: np.asarray(array) for path, array in jax.jit(some)(jax.random.key(0)).items()}


@contextlib.contextmanager
def _prefetched(get: Callable[[str], np.ndarray], order: Iterable[str]) -> Generator[Callable[[str], np.ndarray]]:
  """Yields a function that reads the tensors of `order` by `get`, prefetching the next one; repeats are read once."""
  coming = [name for name, _ in itertools.groupby(order)]
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    reading = {name: pool.submit(get, name) for name in coming[:1]}
    current: dict[str, np.ndarray] = {}

    def read(name: str) -> np.ndarray:
      if name not in current:
        current.clear()
        tensor = reading.pop(name).result()
        coming.pop(0)
        reading.update({following: pool.submit(get, following) for following in coming[:1]})
        current[name] = tensor
      return current[name]

    yield read
