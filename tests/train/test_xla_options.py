from zoo.plan.chips import named_devices, parse_target
from zoo.sharding import make_mesh
from zoo.train.xla_options import ON_TPU, compiler_options


def test_steps_for_several_tpus_gather_parameters_as_such():
  mesh = make_mesh({"data": -1}, named_devices(parse_target("v5e:2x2")))
  assert compiler_options(mesh, {}) == ON_TPU


def test_other_devices_and_one_alone_are_asked_for_nothing():
  for target in ("h100:8", "v5e:1x1"):
    assert compiler_options(make_mesh({"data": -1}, named_devices(parse_target(target))), {}) is None
  assert compiler_options(make_mesh({"data": -1}), {}) is None


def test_ones_own_flags_stand():
  mesh = make_mesh({"data": -1}, named_devices(parse_target("v5e:2x2")))
  environment = {"LIBTPU_INIT_ARGS": "--xla_enable_async_all_gather=false --xla_tpu_scoped_vmem_limit_kib=98304"}
  assert set(ON_TPU) - set(compiler_options(mesh, environment)) == {"xla_enable_async_all_gather"}
