"""Sharding rules for parameters: a strategy is a list of (path pattern, placement), of which the first match wins.

Placements align with the *last* dimensions of an array, so the arrays of a scanned stack, which have one more dimension
in front, follow the same rules. Optimizer state and averages are sharded as the parameter whose path theirs ends with.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from zoo.errors import UserError, did_you_mean
from zoo.sharding.batches import batch_sharding
from zoo.sharding.strategies import STRATEGIES, TENSOR
from zoo.tree import check_pattern, matches, path_name, row_axis


class Placement(NamedTuple):
  """The PartitionSpec of one array, and the rule that gave it."""

  rule: str
  spec: P


class Row(NamedTuple):
  """One line of the sharding report."""

  path: str
  shape: tuple[int, ...]
  dtype: str
  rule: str
  spec: P
  bytes: int
  bytes_per_device: int


def shardings(tree: Any, strategy: str | Sequence, mesh: Mesh) -> Any:
  """A NamedSharding for every array of `tree`: a train state {"params": ..., ...}, or parameters alone.

  Args:
    tree: arrays or their shapes (`jax.eval_shape`).
    strategy: a name of STRATEGIES, or a list of [pattern, placement], the first match wins. A placement names a mesh
      axis, a list of axes or None for each of the last dimensions: ["up/kernel", [None, "model"]]; [] replicates. A
      strategy's name as the last entry places what no earlier line matched; without one, the rest is replicated.
    mesh: its axes may have any name; the built-in strategies use "data" and "model".

  Raises:
    UserError: an unknown strategy or axis, a pattern that matches nothing, a dimension that does not divide.
  """
  placed = placements(tree, strategy, mesh)
  return jax.tree_util.tree_map_with_path(lambda path, _: NamedSharding(mesh, placed[path_name(path)].spec), tree)


def report(tree: Any, strategy: str | Sequence, mesh: Mesh) -> list[Row]:
  """For every array of `tree`: path, shape, dtype, rule, PartitionSpec, bytes in total and per device."""
  rows = []
  placed = placements(tree, strategy, mesh)
  for path, array in jax.tree_util.tree_leaves_with_path(tree):
    name = path_name(path)
    rule, spec = placed[name]
    shard = NamedSharding(mesh, spec).shard_shape(array.shape)
    size = array.dtype.itemsize
    row = Row(
      name, tuple(array.shape), str(array.dtype), rule, spec, math.prod(array.shape) * size, math.prod(shard) * size
    )
    rows.append(row)
  return rows


def placements(tree: Any, strategy: str | Sequence, mesh: Mesh) -> dict[str, Placement]:
  """Path -> placement for every array of `tree`; see `shardings`."""
  shapes = {path_name(path): tuple(x.shape) for path, x in jax.tree_util.tree_leaves_with_path(tree)}
  prefix = "params/" if isinstance(tree, Mapping) and "params" in tree else ""
  params = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
  lines, rest = parse_strategy(strategy, list(params), mesh)
  placed = {name: place(name, shape, lines, rest, mesh) for name, shape in params.items()}

  def follow(name: str, shape: tuple[int, ...]) -> Placement:
    if name.startswith("rows/"):
      spec = [None] * row_axis(name) + list(batch_sharding(mesh).spec)
      return Placement("carried for each row: sharded as the batch", P(*spec) if any(spec) else P())
    segments = name.split("/")
    owner = next((o for i in range(len(segments)) if (o := "/".join(segments[i:])) in params), None)
    if owner is not None and params[owner] == shape:
      return placed[owner]
    return Placement("no parameter's shape: replicated", P())

  return {name: follow(name, shape) for name, shape in shapes.items()}


def rules_and_rest(strategy: str | Sequence) -> tuple[list, str]:
  """Splits a strategy -> the user's rules, unchecked, and the name of the strategy for the rest."""
  entries = [strategy] if isinstance(strategy, str) else list(strategy)
  rest = entries.pop() if entries and isinstance(entries[-1], str) else "replicated"
  return entries, rest


def parse_strategy(strategy: str | Sequence, names: list[str], mesh: Mesh) -> tuple[list[tuple[str, tuple]], str]:
  """Parses a strategy -> (the user's rules, validated; the built-in strategy for the rest)."""
  entries, rest = rules_and_rest(strategy)
  if rest not in STRATEGIES:
    raise UserError(
      f"There is no sharding '{rest}'.{did_you_mean(rest, STRATEGIES)} There are: {', '.join(STRATEGIES)}."
    )
  rules, spread = STRATEGIES[rest]
  for axis in [spread] * bool(spread) + ["model"] * (rules is TENSOR):
    if axis not in mesh.shape:
      raise UserError(f"sharding '{rest}' needs a mesh axis '{axis}', the mesh is {dict(mesh.shape)}. Add mesh.{axis}.")
  lines = []
  for entry in entries:
    pattern, spec = line(entry, "sharding", "['up/kernel', [None, 'model']]")
    check_pattern(pattern, names, "sharding")
    used = [axis for part in spec for axis in axes_of(part)]
    for axis in used:
      if axis not in mesh.shape:
        near = did_you_mean(str(axis), mesh.shape)
        raise UserError(f"sharding: '{pattern}' names the mesh axis {axis!r}.{near} The mesh is {dict(mesh.shape)}.")
      if used.count(axis) > 1:
        raise UserError(f"sharding: '{pattern}' uses the mesh axis '{axis}' twice. An axis splits one dimension.")
    lines.append((pattern, spec))
  return lines, rest


def line(entry: Any, what: str, example: str) -> tuple[Any, tuple]:
  """Parses a user's line -> its pattern, unchecked, and its placement, in which several axes are a tuple.

  Raises:
    UserError: it is not a pattern and a list; `what` names the line, `example` is a valid one.
  """
  listed = lambda value: isinstance(value, Sequence) and not isinstance(value, str)
  if not listed(entry) or len(entry) != 2 or not listed(entry[1]):
    raise UserError(f"{what}: {entry!r} is not a rule. A rule is a pattern and a list: {example}.")
  return entry[0], tuple(tuple(axis) if isinstance(axis, list) else axis for axis in entry[1])


def place(name: str, shape: tuple[int, ...], lines: Sequence, rest: str, mesh: Mesh) -> Placement:
  """The placement of one parameter: the user's first line that matches, or else the strategy `rest`."""
  for pattern, spec in lines:
    if matches(pattern, name):
      if len(spec) > len(shape):
        raise UserError(
          f"{name} {shape} has fewer dimensions than sharding '{pattern}' places: {list(spec)}. Shorten it."
        )
      check_divides(name, shape, spec, mesh, f"change the line '{pattern}'")
      return Placement(f"{pattern} {list(spec)}", aligned(shape, spec))
  fsdp_axis = STRATEGIES[rest][1]
  spec, rule = P(), rest
  for pattern, choices in rules_for_mesh(mesh, rest):
    choices = [choice for choice in choices if len(choice) <= len(shape)]
    if choices and matches(pattern, name):
      fitting = [choice for choice in choices if is_divisible(shape, choice, mesh)]
      if not fitting:
        check_divides(name, shape, choices[0], mesh, "use the sharding 'fsdp'")
      spec, rule = aligned(shape, fitting[0]), f"{rest}: {pattern}"
      break
  return Placement(rule, shard_largest_dimension(shape, spec, fsdp_axis, mesh) if fsdp_axis else spec)


def rules_for_mesh(mesh: Mesh, strategy: str) -> list[tuple[str, list[tuple]]]:
  """The rules of a strategy whose axes a mesh has."""
  usable = {
    pattern: [choice for choice in choices if all(axis is None or axis in mesh.shape for axis in choice)]
    for pattern, choices in STRATEGIES[strategy][0]
  }
  return [(pattern, choices) for pattern, choices in usable.items() if choices]


def shard_largest_dimension(shape: tuple[int, ...], spec: P, axis: str, mesh: Mesh) -> P:
  """`spec` with its largest unsharded dimension that divides sharded over `axis`; the last one of equals."""
  parts = [*spec, *[None] * (len(shape) - len(spec))]
  divisible = [i for i, size in enumerate(shape) if parts[i] is None and size and size % mesh.shape[axis] == 0]
  if divisible:
    parts[max(divisible, key=lambda i: (shape[i], i))] = axis
  return P(*parts) if any(parts) else P()


def aligned(shape: tuple[int, ...], spec: Sequence) -> P:
  """The placement of the last dimensions, for an array of `shape`."""
  return P(*[None] * (len(shape) - len(spec)), *spec) if any(spec) else P()


def axes_of(part: Any) -> tuple:
  """The mesh axes that shard one dimension, as a tuple, from None, an axis, or several."""
  return () if part is None else part if isinstance(part, tuple) else (part,)


def num_shards(part: Any, mesh: Mesh) -> int:
  """The number of shards of one dimension."""
  return math.prod(mesh.shape[axis] for axis in axes_of(part))


def is_divisible(shape: tuple[int, ...], spec: Sequence, mesh: Mesh) -> bool:
  """Whether `spec`, aligned to the last dimensions, cuts `shape` into equal pieces."""
  last = shape[len(shape) - len(spec) :]
  return all(size % num_shards(part, mesh) == 0 for size, part in zip(last, spec, strict=True))


def check_divides(name: str, shape: tuple[int, ...], spec: Sequence, mesh: Mesh, way_out: str) -> None:
  """Raises a UserError that names the array, the sizes and the way out unless `spec` divides `shape`."""
  last = shape[len(shape) - len(spec) :]
  for size, part in zip(last, spec, strict=True):
    if size % num_shards(part, mesh):
      axis = "' and '".join(axes_of(part))
      raise UserError(
        f"{name} {shape}: {size} does not divide over the {num_shards(part, mesh)} devices of mesh axis '{axis}'. "
        f"Change the model's size, {way_out}, or change the mesh {dict(mesh.shape)}."
      )
