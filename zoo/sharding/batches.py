"""Sharding of batches: which rows a host reads, and which devices get them."""

import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from zoo.errors import UserError
from zoo.sharding.meshes import row_axes, row_axes_first


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Sharding of rows over mesh axes "slice", "data" and "expert"; replicated on a mesh without them."""
  axes = row_axes(mesh.axis_names)
  return NamedSharding(mesh, P(axes[0] if len(axes) == 1 else axes) if axes else P())


def num_row_shards(mesh: Mesh) -> int:
  """The number of shards of a batch's rows."""
  return math.prod(mesh.shape[axis] for axis in row_axes(mesh.axis_names))


def batch_part(mesh: Mesh, process: int | None = None) -> tuple[int, int]:
  """-> (index, count): this host reads part `index` of `count` equal parts of every batch.

  Usually (process_index, process_count). Hosts whose devices share positions on the row axes (another mesh axis runs
  across them) read the same part.

  Raises:
    UserError: a host's positions on these axes are not contiguous.
  """
  process = jax.process_index() if process is None else process
  axes = row_axes(mesh.axis_names)
  if not axes:
    return 0, 1
  devices = row_axes_first(mesh.devices, mesh.axis_names)
  positions = [i for i, row in enumerate(devices) if any(device.process_index == process for device in row)]
  first, count = positions[0], len(positions)
  if first % count or positions != list(range(first, first + count)) or len(devices) % count:
    axis_names = " and ".join(f"'{axis}'" for axis in axes)
    raise UserError(
      f"mesh {dict(mesh.shape)}: the devices of host {process} are not contiguous along axis {axis_names}: positions "
      f"{positions}. Reorder the axes of mesh."
    )
  return first // count, len(devices) // count


def check_rows(rows: int, mesh: Mesh) -> None:
  """UserError if a global batch of so many rows does not divide over the row axes."""
  axes = row_axes(mesh.axis_names)
  pieces = num_row_shards(mesh)
  if rows % pieces:
    axis_names = " and ".join(f"'{axis}'" for axis in axes)
    raise UserError(
      f"batch_size {rows} does not divide over the {pieces} devices of mesh axis {axis_names}. Change batch_size or "
      f"mesh."
    )


def put_replicated(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
  """A batch that every host has in full -> global arrays, sharded by rows if they divide, else replicated.

  batch: {name: numpy array [batch, ...]} of any dtype; may be nested.
  """
  rows = len(jax.tree.leaves(dict(batch))[0])
  sharding = NamedSharding(mesh, P()) if rows % num_row_shards(mesh) else batch_sharding(mesh)
  put = lambda value: jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])
  return jax.tree.map(put, dict(batch))


def put_batch(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
  """This host's part of a batch (see `batch_part`) -> global arrays, sharded by `batch_sharding`.

  Args:
    batch: {name: numpy array [rows of this host, ...]} of any dtype.
    mesh: the mesh of all hosts.

  Raises:
    UserError: the global batch does not divide over the axes.
  """
  sharding = batch_sharding(mesh)
  check_rows(len(next(iter(batch.values()))) * batch_part(mesh)[1], mesh)
  return {key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items()}
