"""Device meshes: the order of devices in them, and which axes shard a batch."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding

from zoo.errors import UserError, did_you_mean, shown, tell

# Axes that shard the rows of a batch, the slowest first: "slice" runs over the network between TPU slices; along
# "expert" devices have different rows until a mixture of experts exchanges them.
ROWS = ("slice", "data", "expert")
KNOWN = (*ROWS, "model", "sequence")  # Axes that strategies, kernels and batches use; others are of the user's rules.


def make_mesh(axes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh of all devices, e.g. {"data": -1, "model": 2}: one axis may be -1: all remaining devices.

  Raises:
    UserError: the axes are no mapping, or the product of their sizes is not the number of devices.
  """
  if not hasattr(axes, "items"):  # A ConfigDict is no Mapping.
    raise UserError(f"mesh is {shown(axes)}. It must be a mapping of axes to sizes, e.g. {{'data': -1}}.")
  devices = jax.devices() if devices is None else list(devices)
  axes, count = dict(axes), len(devices)
  if not axes:
    raise UserError("mesh is empty. It needs an axis, e.g. {'data': -1}.")
  for name, size in axes.items():
    if isinstance(size, bool) or not isinstance(size, int) or (size < 1 and size != -1):
      raise UserError(f"mesh.{name} is {size!r}. It must be an int: a number of devices, or -1 for all that remain.")
  open_axes = [name for name, size in axes.items() if size == -1]
  if len(open_axes) > 1:
    raise UserError(f"mesh has -1 at {' and '.join(open_axes)}. Only one axis can be -1.")
  fixed = math.prod(size for size in axes.values() if size != -1)
  if open_axes and count % fixed == 0:
    axes[open_axes[0]] = count // fixed
  elif open_axes or fixed != count:
    way_out = "a multiple of" if open_axes else "as many as"
    raise UserError(
      f"mesh {axes} does not fit: there are {count} devices, and it needs {way_out} {fixed}. Change mesh."
    )
  axes = {
    name: axes[name] for name in sorted(axes, key=lambda name: name != "slice")
  }  # Slices are numbered contiguously.
  return Mesh(arrange_devices(axes, devices), tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def check_axes(mesh: Mesh, *rules: Any) -> None:
  """Warns of an axis of several devices that is unknown and that no rule names.

  Args:
    mesh: the devices.
    rules: a strategy, and rules of activations: whatever may name an axis.
  """
  named = {axis for entry in rules for axis in _strings(entry)}
  for axis, size in mesh.shape.items():
    if size > 1 and axis not in (*KNOWN, *named):
      tell(
        f"Warning: mesh has the axis {shown(axis)}, but nothing is split there: {size} devices repeat the same work."
        f"{did_you_mean(str(axis), KNOWN)} Choose of {', '.join(KNOWN)}, or name it in sharding or activations."
      )


def _strings(entry: Any) -> Iterator[str]:
  """The strings within nested lists."""
  if isinstance(entry, str):
    yield entry
  elif isinstance(entry, Iterable):
    for part in entry:
      yield from _strings(part)


def row_axes(names: Iterable[str]) -> tuple[str, ...]:
  """The axes of a mesh that shard the rows of a batch, in the order of ROWS."""
  names = tuple(names)
  return tuple(axis for axis in ROWS if axis in names)


def arrange_devices(axes: Mapping[str, int], devices: Sequence[jax.Device]) -> np.ndarray:
  """Arranges devices in an object array of the shape `axes.values()`.

  Neighbours on an axis are neighbours in the topology where possible. TPU slices are split by the axis "slice", or else
  by "data"; every other axis stays within a slice. Each host's positions on the row axes are contiguous.

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
  device_array = np.concatenate(
    [arrange_along_links(tuple(sizes.values()), part) for part in by_slice],
    axis=list(axes).index(name) if across > 1 else 0,
  )
  return contiguous_hosts(device_array, tuple(axes))


def arrange_along_links(sizes: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
  """Devices as an object array of shape `sizes`; neighbours on an axis are neighbours in the topology where possible.

  `jax.make_mesh`, where each axis is one or several dimensions of a TPU's torus; else an axis takes a part of a
  dimension; and where JAX finds no assignment (v4 with two devices a chip), devices are ordered by host.
  """
  for split in (False, True):
    with contextlib.suppress(NotImplementedError, ValueError, AssertionError):
      return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=split)
  return np.array(_by_host(devices), dtype=object).reshape(sizes)


def _by_host(devices: Iterable[jax.Device]) -> list[jax.Device]:
  return sorted(devices, key=lambda device: (device.process_index, device.id))


def row_axes_first(devices: np.ndarray, names: Sequence[str]) -> np.ndarray:
  """The devices of a mesh as [positions on the row axes, the rest]."""
  rows = [list(names).index(axis) for axis in row_axes(names)]
  return np.moveaxis(devices, rows, range(len(rows))).reshape(math.prod(devices.shape[i] for i in rows), -1)


def contiguous_hosts(devices: np.ndarray, names: Sequence[str]) -> np.ndarray:
  """Reorders the devices of a mesh so that each host's positions on the row axes are contiguous: one part of a batch.

  JAX orders a TPU slice along its links, in and out of hosts: in a v5e of 4 x 4 host 0 has the positions 0, 1, 6 and
  15. Positions change; the devices that share one, along the other axes, stay as in JAX unless hosts share only some
  positions. Then all devices are ordered by host.

  Args:
    devices: object [sizes of the axes], of jax.Device.
    names: of the axes.
  """
  rows = [list(names).index(axis) for axis in row_axes(names)]
  if not rows:
    return devices
  flat = row_axes_first(devices, names)
  hosts = [tuple(sorted({device.process_index for device in row})) for row in flat]
  if all(one == other or not set(one) & set(other) for one in hosts for other in hosts):
    order = sorted(range(len(flat)), key=hosts.__getitem__)
    moved = np.moveaxis(devices, rows, range(len(rows)))
    return np.moveaxis(flat[order].reshape(moved.shape), range(len(rows)), rows)
  return np.array(_by_host(devices.flat), dtype=object).reshape(devices.shape)


def mesh_of(tree: Any) -> Mesh | None:
  """The mesh that the arrays of a tree are sharded over, if any."""
  shardings = (getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(tree))
  return next((sharding.mesh for sharding in shardings if isinstance(sharding, NamedSharding)), None)
