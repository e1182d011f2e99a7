"""Loads files as parameter trees with old names, optionally with missing or misshapen arrays."""

import functools
import logging
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from zoo.build import sizes_of
from zoo.compat.core import Core
from zoo.convert.rules.layouts import Rule
from zoo.errors import UserError
from zoo.hub import tables
from zoo.hub.loading import read_params
from zoo.hub.msgpack import from_torch, torch_name
from zoo.tree import flatten, unflatten

LEFT_OUT = "left out. init_weights(rng, params=params) adds it."


class Patched(Mapping):
  """Lazy tensors of files, some hidden or replaced by arrays in memory."""

  def __init__(self, tensors: Any, hidden: set[str], arrays: Mapping[str, np.ndarray]):
    self.tensors, self.arrays = tensors.only(name for name in tensors if name not in hidden), dict(arrays)

  def __getitem__(self, name: str) -> np.ndarray:
    return self.arrays[name] if name in self.arrays else self.tensors[name]

  def __iter__(self):
    return iter({**self.tensors.shapes, **self.arrays})

  def __len__(self) -> int:
    return len({**self.tensors.shapes, **self.arrays})

  @property
  def shapes(self) -> dict[str, tuple[int, ...]]:
    """name -> shape."""
    return {**self.tensors.shapes, **{name: array.shape for name, array in self.arrays.items()}}

  @property
  def dtypes(self) -> dict[str, np.dtype]:
    """name -> dtype."""
    return {**self.tensors.dtypes, **{name: array.dtype for name, array in self.arrays.items()}}


def old_params(
  core: Core,
  tensors: Any,
  where: str,
  key: jax.Array,
  *,
  replace: bool,
  fill: bool,
  quiet: Collection[str] = (),
) -> Any:
  """Loads the parameter tree of a core's model under old names.

  Args:
    core: the core.
    tensors: from `zoo.hub.files.open_tensors`.
    where: name of the files in messages.
    key: random key for missing arrays.
    replace: whether misshapen arrays are initialised randomly instead.
    fill: whether missing arrays are initialised randomly; False: they are left out.
    quiet: torch's names of arrays that may be missing without a warning.

  Raises:
    UserError: as `zoo.hub.loading.read_params`; a misshapen array, without `replace`.
  """
  sizes = sizes_of(core.model)
  table, rules = core.table, core.torch
  names = tables.canonical(tensors, table, where)
  every = {rule.theirs for head in table.HEADS for rule in table.rules(tables.with_head(table, sizes, head))}
  missing, misshapen = [], {}
  for rule in rules:
    spelling = tables.lookup(rule.theirs, names, table, every)
    if spelling is None:
      missing.append(rule)
    elif tensors.shapes[names[spelling]] != rule.shape(core.shapes[rule.ours]):
      misshapen[names[spelling]] = rule
  if misshapen and not replace:
    name, rule = next(iter(misshapen.items()))
    raise UserError(
      f"{where}: {name} {tensors.shapes[name]} is not {rule.shape(core.shapes[rule.ours])}, as in the config, and "
      f"{len(misshapen) - 1} more differ. With ignore_mismatched_sizes=True they are initialised at random."
    )
  dtype = widest(tensors)
  if len(missing) == len(rules):
    missing = []  # Files of another model.
  absent = {rule.theirs for rule in missing}
  anew = absent | {rule.theirs for rule in misshapen.values()}
  patches = _random(core, [rule for rule in rules if rule.theirs in anew], key, dtype)
  if misshapen:
    report(f"{where}: initialised at random because the shapes did not match: {', '.join(sorted(misshapen))}.")
  lost = absent - {*quiet} - {rule.theirs for rule in rules if rule.ours in {spare.ours for spare in core.spare}}
  if lost:
    advice = "initialised at random. Train before use." if fill else LEFT_OUT
    report(f"{where} has no {', '.join(sorted(lost)[:8])}: {advice}")
  patched = Patched(tensors, set(misshapen), patches) if patches else tensors
  tree = core.old(read_params(patched, table, core.model, where, dtype=dtype, mesh=_default_device()))
  if fill or not lost:
    return tree
  gone = {rule.theirs for rule in core.rules if rule.ours in {rule.ours for rule in rules if rule.theirs in lost}}
  return unflatten({path: array for path, array in flatten(tree).items() if path not in gone})


def plain_params(shapes: Any, prefix: str, tensors: Any, where: str, *, replace: bool) -> tuple[dict[str, Any], Any]:
  """For a module that is not the zoo's: the part of a tree that is in files, and the rest.

  Args:
    shapes: the tree of shapes.
    prefix: prefix of the body's names, which the files or the tree may lack.
    tensors, where, replace: as in `old_params`.

  Raises:
    UserError: a misshapen array, without `replace`; files without any of the arrays.
  """
  loaded, random, mismatched = {}, {}, []
  for path, leaf in flatten(shapes).items():
    parts = path.split("/")
    name = torch_name(parts)
    names = [name, f"{prefix}.{name}", name.removeprefix(f"{prefix}.")] + [".".join(parts)]
    name = next((name for name in names if name in tensors.shapes), None)
    array = None if name is None else np.asarray(tensors[name])
    if array is not None and name != ".".join(parts):
      array = from_torch(parts, array)
    if array is not None and array.shape != leaf.shape:
      mismatched.append(f"{name} {array.shape} instead of {leaf.shape}")
      array = None
    (random if array is None else loaded)[path] = leaf if array is None else jnp.asarray(array)
  if not loaded and random:
    raise UserError(f"{where} holds nothing of this model: {', '.join(sorted(random)[:3])} are not there.")
  if mismatched and not replace:
    raise UserError(
      f"{where}: {mismatched[0]}. With ignore_mismatched_sizes=True {len(mismatched)} array(s) are random instead."
    )
  if mismatched:
    report(f"{where}: initialised at random because the shapes did not match: {'; '.join(mismatched)}.")
  return loaded, random


def report(message: str) -> None:
  """Warns, and also logs to the old classes' logger if it has handlers, to avoid duplicate lines."""
  logger = logging.getLogger("transformers.modeling_flax_utils")
  if logger.handlers:
    logger.warning(message)
  warnings.warn(message, stacklevel=4)


def _random(core: Core, rules: list[Rule], key: jax.Array, dtype: Any) -> dict[str, np.ndarray]:
  """Initialises some arrays, under torch's names; the others are not computed."""
  if not rules:
    return {}

  def some(rng):
    flat = flatten(core.model.init(rng, *core.model.example())["params"])
    return {rule.ours: flat[rule.ours].astype(dtype) for rule in rules}

  arrays = {path: np.asarray(array) for path, array in jax.jit(some)(key).items()}
  tensors: dict[str, np.ndarray] = {}
  for rule in rules:
    tensors[rule.theirs] = rule.write(arrays[rule.ours], tensors.get(rule.theirs))
  return tensors


def widest(tensors: Any) -> Any:
  """The widest floating dtype in the files, limited to those of JAX."""
  floats = [dtype for dtype in tensors.dtypes.values() if jnp.issubdtype(dtype, jnp.floating)]
  return jax.dtypes.canonicalize_dtype(
    functools.reduce(jnp.promote_types, floats, floats[0]) if floats else jnp.float32
  )


def _default_device() -> Mesh | None:
  """The default device, if it is not the first one: large models use `with jax.default_device(cpu)`."""
  (device,) = jnp.zeros(()).devices()
  return None if device == jax.devices()[0] else Mesh(np.array([device]), ("data",))
