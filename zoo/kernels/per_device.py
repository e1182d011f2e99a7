"""Sharding of attention kernels over rows (examples) and heads, and the exception for unsupported calls."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from zoo.sharding import axes_of, batch_sharding
from zoo.sharding.rules import num_shards


class Unsupported(Exception):
  """A kernel does not support a call; the message is the reason."""


def no_bias(bias: Any) -> None:
  """Unsupported: the logits have a bias."""
  if bias is not None:
    raise Unsupported("it has a bias")


def rows_of(mesh: Mesh) -> Any:
  """The mesh axes that shard rows, as an entry of a PartitionSpec."""
  spec = batch_sharding(mesh).spec
  return spec[0] if spec else None


def rows_and_heads(query: jax.Array, key: jax.Array, mesh: Mesh) -> tuple[Any, Any]:
  """The mesh axes that shard rows and heads, as entries of a PartitionSpec.

  Raises:
    Unsupported: the rows, or the heads of query [batch, length, heads, head_dim] or key, do not divide over them.
  """
  rows, heads = rows_of(mesh), "model" if mesh.shape.get("model", 1) > 1 else None
  for what, size, axes in (
    ("rows", len(query), rows),
    ("heads", query.shape[2], heads),
    ("heads", key.shape[2], heads),
  ):
    if size % num_shards(axes, mesh):
      named = "' and '".join(axes_of(axes))
      raise Unsupported(f"{size} {what} do not divide over the {num_shards(axes, mesh)} devices of mesh axis '{named}'")
  return rows, heads


def on_mesh(run: Callable, mesh: Mesh, query, key, value, *others: tuple[Any, Any], length: str | None = None):
  """Runs `run(query, key, value, *others)` under shard_map over rows and heads; directly on a mesh of one device.

  Args:
    run: independent for every row and every head (of the query, with its key head).
    mesh: rows are sharded as by `zoo.sharding.batch_sharding`, heads over "model".
    query, key, value: [batch, length, heads, head_dim]
    others: further arguments of `run` with their PartitionSpecs.
    length: the mesh axis that shards queries; each device sees all keys.
  """
  if mesh.size == 1:
    return run(query, key, value, *(array for array, _ in others))
  rows, heads = rows_and_heads(query, key, mesh)
  query_spec, key_spec = P(rows, length, heads, None), P(rows, None, heads, None)
  in_specs = (query_spec, key_spec, key_spec, *(place for _, place in others))
  # check_vma=False: there is no replication rule for kernels.
  per_device = jax.shard_map(run, mesh=mesh, in_specs=in_specs, out_specs=query_spec, check_vma=False)
  return per_device(query, key, value, *(array for array, _ in others))


def unshard_length(array: jax.Array, mesh: Mesh) -> jax.Array:
  """Replicates `array` [batch, length, ...] along its length; XLA chooses the sharding of the other dimensions."""
  free = P.UNCONSTRAINED
  return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, P(free, None, *[free] * (array.ndim - 2))))


def pad_to_multiple(array: jax.Array, multiple: int, axis: int) -> jax.Array:
  """Zero-pads `axis` of an array of any dtype to a multiple (0: unchanged).

  >>> pad_to_multiple(jnp.ones((2, 5)), 4, axis=1).shape
  (2, 8)
  """
  missing = -array.shape[axis] % multiple if multiple else 0
  return jnp.pad(array, [(0, missing if i == axis else 0) for i in range(array.ndim)]) if missing else array
