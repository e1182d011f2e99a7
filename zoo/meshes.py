"""In which order devices make up a mesh."""

import contextlib
from collections.abc import Iterable, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils


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


def hosts_together(devices: np.ndarray, names: Sequence[str]) -> np.ndarray:
  """The devices of a mesh, each host's places on the axis "data" side by side, so that it reads one part of a batch.

  JAX orders a TPU slice along its links, in and out of hosts: in a v5e of 4 x 4 host 0 has the places 0, 1, 6 and 15.
  The places change; which devices share one, along the other axes, stays as JAX has it unless hosts share some places
  and not others. Then all devices are in the order of their hosts.

  Args:
    devices: object [sizes of the axes], of jax.Device.
    names: of the axes.
  """
  if "data" not in names:
    return devices
  rows = np.moveaxis(devices, list(names).index("data"), 0)
  hosts = [tuple(sorted({device.process_index for device in row.flat})) for row in rows.reshape(len(rows), -1)]
  if all(one == other or not set(one) & set(other) for one in hosts for other in hosts):
    order = sorted(range(len(rows)), key=hosts.__getitem__)
    return np.moveaxis(rows[order], 0, list(names).index("data"))
  return np.array(_by_host(devices.flat), dtype=object).reshape(devices.shape)
