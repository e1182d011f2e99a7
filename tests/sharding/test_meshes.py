import jax
import numpy as np
import pytest
from jax.experimental import mesh_utils

from zoo.errors import UserError
from zoo.sharding import batch_part, check_axes, make_mesh
from zoo.sharding.meshes import arrange_devices, contiguous_hosts


class Hosts:
  """A mesh of devices that belong to hosts."""

  def __init__(self, hosts, *axes):
    device = lambda host: type("Device", (), {"process_index": host})()
    self.devices = np.vectorize(device, otypes=[object])(np.array(hosts))
    self.axis_names, self.shape = axes, dict(zip(axes, self.devices.shape))


@pytest.mark.parametrize(
  "mesh, parts",
  [
    (Hosts([0, 0, 1, 1], "data"), {0: (0, 2), 1: (1, 2)}),
    (Hosts([[0, 1], [2, 3]], "data", "model"), {0: (0, 2), 1: (0, 2), 2: (1, 2), 3: (1, 2)}),
    (Hosts([[0, 0], [1, 1]], "model", "data"), {0: (0, 1), 1: (0, 1)}),
    (Hosts([[0, 0], [1, 1]], "model", "expert"), {0: (0, 1), 1: (0, 1)}),
    (Hosts([[0, 0], [1, 1]], "model", "sequence"), {0: (0, 1), 1: (0, 1)}),
    (Hosts([[0, 1], [2, 3]], "data", "expert"), {0: (0, 4), 1: (1, 4), 2: (2, 4), 3: (3, 4)}),
    (Hosts([[[0, 1]], [[2, 3]]], "slice", "data", "model"), {0: (0, 2), 1: (0, 2), 2: (1, 2), 3: (1, 2)}),
  ],
)
def test_hosts_that_share_a_place_on_the_data_axis_read_the_same_part(mesh, parts):
  assert {host: batch_part(mesh, host) for host in parts} == parts


def test_a_host_in_two_places_is_told():
  with pytest.raises(
    UserError, match=r"the devices of host 0 are not contiguous along axis 'data': positions \[0, 2\]"
  ):
    batch_part(Hosts([0, 1, 0, 1], "data"), 0)


@pytest.mark.parametrize(
  "hosts, axes, wanted",
  [
    ([0, 0, 1, 1, 1, 1, 0, 0], ("data",), [0, 0, 0, 0, 1, 1, 1, 1]),
    ([[0, 1], [2, 3], [0, 1], [2, 3]], ("data", "model"), [[0, 1], [0, 1], [2, 3], [2, 3]]),
    ([[1, 0, 1, 0], [1, 0, 1, 0]], ("model", "data"), [[0, 0, 1, 1], [0, 0, 1, 1]]),
    # Hosts that share one place and not another: all in the order of hosts.
    ([[0, 1], [1, 0], [0, 0], [1, 1]], ("data", "model"), [[0, 0], [0, 0], [1, 1], [1, 1]]),
    ([1, 0, 1, 0], ("model",), [1, 0, 1, 0]),
    ([[0, 1], [1, 0]], ("data", "expert"), [[0, 0], [1, 1]]),
    ([[0, 1], [1, 0]], ("expert", "data"), [[0, 1], [0, 1]]),
  ],
)
def test_places_of_a_host_lie_side_by_side(hosts, axes, wanted):
  devices = Hosts(hosts, *axes).devices
  for number, device in enumerate(devices.flat):
    device.id = number
  arranged = contiguous_hosts(devices, axes)
  assert [device.process_index for device in arranged.flat] == np.array(wanted).ravel().tolist()
  assert sorted(device.id for device in arranged.flat) == list(range(devices.size))
  if "data" in axes:
    mesh = Hosts(wanted, *axes)
    parts = {batch_part(mesh, host) for host in set(np.array(wanted).ravel().tolist())}
    assert {part for part, _ in parts} == set(range(next(iter(parts))[1]))


@pytest.mark.parametrize("ways", [0, 1, 2])
def test_a_mesh_that_does_not_follow_the_links_is_made_all_the_same(monkeypatch, ways):
  tried = []

  def create(sizes, devices, allow_split_physical_axes):
    tried.append(allow_split_physical_axes)
    if len(tried) <= ways:
      raise NotImplementedError("Failed to find assignment")
    return np.array(devices, dtype=object).reshape(sizes)

  monkeypatch.setattr(mesh_utils, "create_device_mesh", create)
  mesh = make_mesh({"data": 2, "model": -1}, jax.devices()[::-1])
  assert dict(mesh.shape) == {"data": 2, "model": 4} and set(mesh.devices.flat) == set(jax.devices())
  assert tried == [False, True][: ways + 1]


def of_slices(count, each):
  """Devices of TPU slices, in no order."""
  slices = [
    {"slice_index": i % count, "process_index": i % count, "id": i, "platform": "none"} for i in range(count * each)
  ]
  return [type("Device", (), {**one, "device_kind": "none"})() for one in slices]


@pytest.mark.parametrize(
  "axes, place", [({"slice": 2, "data": 2, "model": 2}, 0), ({"model": 2, "data": 4}, 1), ({"data": 8}, 0)]
)
def test_only_data_go_from_slice_to_slice(axes, place):
  devices = arrange_devices(axes, of_slices(2, 4))
  halves = np.split(devices, 2, axis=place)
  assert [{device.slice_index for device in half.flat} for half in halves] == [{0}, {1}]


@pytest.mark.parametrize("axes", [{"slice": 4, "data": 2}, {"model": 8}, {"data": 1, "model": 8}])
def test_slices_that_do_not_fit_the_axes_are_told(axes):
  with pytest.raises(UserError, match="there are 2 slices. Set mesh.slice to 2"):
    arrange_devices(axes, of_slices(2, 4))


def test_an_axis_that_nothing_is_split_over_is_told(capsys):
  mesh = make_mesh({"dat": 4, "data": 2})
  check_axes(mesh, [[".*", [["data", "dat"]]]])
  assert not capsys.readouterr().err
  check_axes(mesh, "replicated", [["layers", ["batch"]]])
  said = capsys.readouterr().err
  assert "mesh has the axis 'dat'" in said and "4 devices repeat the same work. Did you mean 'data'?" in said
