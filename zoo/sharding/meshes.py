"""Device meshes: the order of devices in them, and which axes shard a batch."""

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from zoo.errors import UserError

# Axes that split the rows of a batch, the slowest first: "slice" runs over the network between TPU slices, and the rows
# of "expert" are those of different devices until they reach a mixture of experts.
ROWS = ("slice", "data", "expert")


def make_mesh(axes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh of all devices, e.g. {"data": -1, "model": 2}: at most one -1 takes what the others leave.

  Raises:
    UserError: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  axes, count = dict(axes), len(devices)
  if not axes:
    raise UserError("mesh is empty. It needs an axis, e.g. {'data': -1}.")
  for name, size in axes.items():
    if isinstance(size, bool) or not isinstance(size, int) or (size < 1 and size != -1):
      raise UserError(f"mesh.{name} is {size!r}. It must be a number of devices, or -1 for those that are left.")
  free = [name for name, size in axes.items() if size == -1]
  if len(free) > 1:
    raise UserError(f"mesh has -1 at {' and '.join(free)}. Only one axis can take the devices that are left.")
  fixed = math.prod(size for size in axes.values() if size != -1)
  if free and count % fixed == 0:
    axes[free[0]] = count // fixed
  elif free or fixed != count:
    way_out = "a multiple of" if free else "as many as"
    raise UserError(
      f"mesh {axes} does not fit: there are {count} devices, and it needs {way_out} {fixed}. Change mesh."
    )
  axes = {
    name: axes[name] for name in sorted(axes, key=lambda name: name != "slice")
  }  # Whole slices are numbered first.
  return Mesh(arranged(axes, devices), tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def row_axes(names: Iterable[str]) -> tuple[str, ...]:
  """Those axes of a mesh that split the rows of a batch, in the order of ROWS."""
  names = tuple(names)
  return tuple(axis for axis in ROWS if axis in names)


def arranged(axes: Mapping[str, int], devices: Sequence[jax.Device]) -> np.ndarray:
  """Arranges devices in an array of these sizes.

  Neighbours on an axis are neighbours in the machine where that is possible. Of several TPU slices the axis "slice"
  tells them apart, or else they follow one another on "data"; every other axis stays within one. Each host's places on
  the axes of rows lie side by side.

  Raises:
    UserError: neither "slice" nor "data" divides over the slices.
  """
  slices = sorted({getattr(device, "slice_index", 0) or 0 for device in devices})
  across, sizes = len(slices), dict(axes)
  name = "slice" if "slice" in axes else "data"
  if across > 1:
    if sizes.get(name, 1) % across or (name == "slice" and sizes[name] != across):
      raise UserError(
        f"mesh {sizes} does not fit: there are {across} slices. Set mesh.slice to {across}, or data to a multiple."
      )
    sizes[name] //= across
  by_slice = [[device for device in devices if (getattr(device, "slice_index", 0) or 0) == one] for one in slices]
  placed = np.concatenate(
    [along_links(tuple(sizes.values()), part) for part in by_slice], axis=list(axes).index(name) if across > 1 else 0
  )
  return hosts_together(placed, tuple(axes))


def along_links(sizes: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
  """Devices as an array of these sizes, neighbours on an axis being neighbours in the machine where that is possible.

  That is `jax.make_mesh`, where each axis is one or several dimensions of a TPU's torus; else an axis takes a part of a
  dimension; and where JAX knows no way (v4 with two devices a chip), devices are in the order of their hosts.
  """
  for split in (False, True):
    with contextlib.suppress(NotImplementedError, ValueError, AssertionError):
      return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=split)
  return np.array(_by_host(devices), dtype=object).reshape(sizes)


def _by_host(devices: Iterable[jax.Device]) -> list[jax.Device]:
  return sorted(devices, key=lambda device: (device.process_index, device.id))


def rows_first(devices: np.ndarray, names: Sequence[str]) -> np.ndarray:
  """The devices of a mesh as [places on the axes of rows, the rest]."""
  rows = [list(names).index(axis) for axis in row_axes(names)]
  return np.moveaxis(devices, rows, range(len(rows))).reshape(math.prod(devices.shape[i] for i in rows), -1)


def hosts_together(devices: np.ndarray, names: Sequence[str]) -> np.ndarray:
  """The devices of a mesh, each host's places on the axes of rows side by side, so that it reads one part of a batch.

  JAX orders a TPU slice along its links, in and out of hosts: in a v5e of 4 x 4 host 0 has the places 0, 1, 6 and 15.
  The places change; which devices share one, along the other axes, stays as JAX has it unless hosts share some places
  and not others. Then all devices are in the order of their hosts.

  Args:
    devices: object [sizes of the axes], of jax.Device.
    names: of the axes.
  """
  rows = [list(names).index(axis) for axis in row_axes(names)]
  if not rows:
    return devices
  flat = rows_first(devices, names)
  hosts = [tuple(sorted({device.process_index for device in row})) for row in flat]
  if all(one == other or not set(one) & set(other) for one in hosts for other in hosts):
    order = sorted(range(len(flat)), key=hosts.__getitem__)
    moved = np.moveaxis(devices, rows, range(len(rows)))
    return np.moveaxis(flat[order].reshape(moved.shape), range(len(rows)), rows)
  return np.array(_by_host(devices.flat), dtype=object).reshape(devices.shape)
