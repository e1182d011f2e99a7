"""Sharding of batches: which rows a host reads, and which devices get them."""

import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from zoo.errors import UserError
from zoo.sharding.meshes import row_axes, rows_first


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Sharding of rows over mesh axes "slice", "data" and "expert"; replicated on a mesh without them."""
  axes = row_axes(mesh.axis_names)
  return NamedSharding(mesh, P(axes[0] if len(axes) == 1 else axes) if axes else P())


def pieces_of_rows(mesh: Mesh) -> int:
  """The number of shards of a batch's rows."""
  return math.prod(mesh.shape[axis] for axis in row_axes(mesh.axis_names))


def batch_part(mesh: Mesh, process: int | None = None) -> tuple[int, int]:
  """-> (index, count): which of how many equal parts of every batch this host reads.

  Usually (process_index, process_count). Hosts whose devices share their places on the axes of rows (another axis of
  the mesh runs across them) read the same part.

  Raises:
    UserError: a host's places on these axes are not next to each other.
  """
  process = jax.process_index() if process is None else process
  axes = row_axes(mesh.axis_names)
  if not axes:
    return 0, 1
  devices = rows_first(mesh.devices, mesh.axis_names)
  places = [i for i, row in enumerate(devices) if any(device.process_index == process for device in row)]
  first, many = places[0], len(places)
  if first % many or places != list(range(first, first + many)) or len(devices) % many:
    named = " and ".join(f"'{axis}'" for axis in axes)
    raise UserError(
      f"mesh {dict(mesh.shape)}: host {process} has the places {places} of the axis {named}, apart. Reorder mesh."
    )
  return first // many, len(devices) // many


def check_rows(rows: int, mesh: Mesh) -> None:
  """UserError if a global batch of so many rows does not divide over the axes of rows."""
  axes = row_axes(mesh.axis_names)
  pieces = pieces_of_rows(mesh)
  if rows % pieces:
    named = " and ".join(f"'{axis}'" for axis in axes)
    raise UserError(
      f"batch_size {rows} does not divide over the {pieces} devices of mesh axis {named}. Change batch_size or mesh."
    )


def put_whole(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
  """A batch that every host has whole (numpy) -> global arrays, spread by rows where they divide, else on each."""
  rows = len(jax.tree.leaves(dict(batch))[0])
  sharding = NamedSharding(mesh, P()) if rows % pieces_of_rows(mesh) else batch_sharding(mesh)
  put = lambda value: jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])
  return jax.tree.map(put, dict(batch))


def put_batch(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
  """This host's part of a batch (numpy; see `batch_part`) -> global arrays whose rows are spread as `batch_sharding`.

  Raises:
    UserError: the global batch does not divide over the axes.
  """
  sharding = batch_sharding(mesh)
  check_rows(len(next(iter(batch.values()))) * batch_part(mesh)[1], mesh)
  return {key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items()}
