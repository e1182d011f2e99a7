"""Sharding constraints for activations, by module path, as `zoo.sharding` has them for parameters.

Without them XLA chooses shardings from those of parameters and batch. It never shards sequences by itself.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from zoo.errors import UserError, did_you_mean
from zoo.layers.returned import intercept_outputs
from zoo.sharding.meshes import row_axes
from zoo.sharding.rules import axes_of, line
from zoo.tree import check_pattern, matches

ANY = "any"  # XLA's choice.
BATCH = "batch"  # The axes that split the rows of a batch.

# Placements of the first dimensions. Layers return [batch, length, dim]; queries, keys and values are
# [batch, length, heads, head_dim]. With the axis "sequence" each device has a shard of every sequence: its queries
# stay, and keys and values are gathered (https://arxiv.org/abs/2407.21783, section 3.3.2), unless the
# attention kernel needs them sharded.
LAYERS = (r"layer_\d+|layers|embed", (BATCH, "sequence", None))
QUERIES = ("query", (BATCH, "sequence", ANY, ANY))
# Convolutions are never sharded over frames or pixels: XLA (jax 0.10.2 and 0.12) scales results
# and gradients of their kernels where space is sharded and another mesh axis shards the kernel or nothing.
CONVOLUTION = r"conv_\d+"
CONVOLUTIONS = (CONVOLUTION, (BATCH, None, None))
LOOKED_UP = ("segments|positions", (BATCH, "sequence", None))
# Lookups in trained tables. Shards of a length that does not divide are padded, and on some meshes XLA (jax 0.10.2 and
# 0.12) adds the gradient of the padding to the table's first row: shard evenly or not at all.
TABLES = "embed|segments|positions"
# Kernels of experts: tokens are sent to experts, not kernels to tokens.
EXPERTS = (("experts/(gate|up|down)", ("expert", None, ANY)),)


def built_in(mesh: Mesh, keys: str | None = None) -> list[tuple[str, tuple]]:
  """The built-in rules for a mesh; none if it shards nothing. `keys` as in `parse_rules`."""
  if mesh.size == 1:
    return []
  of_sequence = (QUERIES, ("key|value", (BATCH, keys, ANY, ANY)), LOOKED_UP)
  return [LAYERS, CONVOLUTIONS, *of_sequence * ("sequence" in mesh.shape), *EXPERTS * ("expert" in mesh.shape)]


def parse_rules(lines: Sequence, mesh: Mesh, keys: str | None = None) -> list[tuple[str, tuple]]:
  """Parses the user's rules (patterns are checked later), followed by the built-in ones.

  Args:
    lines: [pattern, placement] each, the first match wins. A pattern is of a module's path. A placement names for the
      first dimensions of what the module returns a mesh axis, a list of axes, "batch" (the axes that split rows), None
      (replicated) or "any" (XLA's choice); further dimensions are XLA's choice.
    mesh: the mesh whose axes may be named.
    keys: the axis that shards the length of keys and values, of `zoo.kernels.Notes`; None: replicated.

  Raises:
    UserError: not a rule, an axis that the mesh lacks, or one that shards two dimensions.
  """
  rules = []
  for entry in lines:
    pattern, placement = line(entry, "activations", "['layers', ['batch', 'sequence']]")
    used = [axis for part in placement for axis in axes_of(part)]
    split = [axis for part in placement if part != ANY for axis in split_over(part, mesh)]
    for axis in used:
      if axis not in (*mesh.shape, BATCH, ANY):
        near = did_you_mean(str(axis), [*mesh.shape, BATCH, ANY])
        raise UserError(f"activations: '{pattern}' names the mesh axis {axis!r}.{near} The mesh is {dict(mesh.shape)}.")
    if twice := next((axis for axis in split if split.count(axis) > 1), None):
      raise UserError(f"activations: '{pattern}' uses the mesh axis '{twice}' twice. An axis splits one dimension.")
    rules.append((pattern, placement))
  return [*rules, *built_in(mesh, keys)]


def constrained(rules: Sequence[tuple[str, tuple]], mesh: Mesh) -> contextlib.AbstractContextManager:
  """Context in which the outputs of modules get sharding constraints by `rules`, of `parse_rules`."""
  if not rules:
    return contextlib.nullcontext()

  def place(path: str, array: jax.Array) -> jax.Array:
    for pattern, placement in rules:
      if matches(pattern, path):
        spec = spec_of(placement, array.shape, mesh, evenly=matches(TABLES, path))
        return array if spec is None else jax.lax.with_sharding_constraint(array, NamedSharding(mesh, spec))
    return array

  return intercept_outputs(place)


def spec_of(placement: tuple, shape: tuple[int, ...], mesh: Mesh, evenly: bool = False) -> P | None:
  """The PartitionSpec of an array of this shape; None if it has fewer dimensions than the placement.

  Axes that the mesh lacks, or that are longer than the dimension, are ignored. If a dimension does not divide, the last
  devices have less of it, or, with `evenly`, it is replicated.
  """
  if len(shape) < len(placement):
    return None
  parts: list[Any] = []
  for part, size in zip(placement, shape, strict=False):
    if part == ANY:
      parts.append(P.UNCONSTRAINED)
      continue
    axes = split_over(part, mesh)
    ways = math.prod(mesh.shape[axis] for axis in axes)
    fits = axes and size >= ways and not (evenly and size % ways)
    parts.append(None if not fits else axes if len(axes) > 1 else axes[0])
  return P(*parts, *[P.UNCONSTRAINED] * (len(shape) - len(placement)))


def split_over(part: Any, mesh: Mesh) -> tuple[str, ...]:
  """The mesh axes of one entry of a placement other than "any"."""
  axes = [axis for name in axes_of(part) for axis in (row_axes(mesh.axis_names) if name == BATCH else (name,))]
  return tuple(axis for axis in axes if axis in mesh.shape)


def check(
  rules: Sequence[tuple[str, tuple]], own_rules: int, shapes: Mapping[str, tuple[int, ...]], mesh: Mesh
) -> None:
  """UserError for rules of the config, the first `own_rules`, that match no module, or that XLA is known to miscompile.

  Args:
    shapes: path of a module -> shape of its output.
  """
  for pattern, placement in rules[:own_rules]:
    check_pattern(pattern, sorted(shapes), "activations", "part of the model")
    most = max((len(shape) for path, shape in shapes.items() if matches(pattern, path)), default=len(placement))
    if most < len(placement):
      raise UserError(
        f"activations: '{pattern}' places {len(placement)} dimensions, what it matches has at most {most}. Give fewer."
      )
  for path, shape in shapes.items():
    pattern, placement = next((rule for rule in rules if matches(rule[0], path)), (None, ()))
    if pattern not in [rule[0] for rule in rules[:own_rules]] or len(shape) < len(placement):
      continue
    ways = [0 if part == ANY else math.prod(mesh.shape[axis] for axis in split_over(part, mesh)) for part in placement]
    used = math.prod(max(1, way) for way in ways)
    if matches(CONVOLUTION, path) and max(ways[1 : len(shape) - 1], default=1) > 1 and used < mesh.size:
      raise UserError(
        f"activations: '{pattern}' splits the spatial dimensions of the convolution {path} on a mesh "
        f"{dict(mesh.shape)} with an idle axis, where XLA computes a wrong gradient. Use ['batch', None, None] for "
        "it, and split what follows."
      )
    for size, way in zip(shape[1:], ways[1:]):
      if matches(TABLES, path) and way > 1 and size >= way and size % way:
        raise UserError(
          f"activations: '{pattern}' splits the {size} tokens that {path} looks up into {way} uneven parts, where "
          f"XLA adds their padding to the gradient of the table's first row. Make it a multiple of {way}, or use None."
        )
