"""In which precision gradients cross devices: read in the program that XLA splits over them."""

import re

import jax
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from ml_collections import ConfigDict

from tests.train.test_train import CONFIG
from zoo.config.loading import read_config, with_defaults
from zoo.errors import UserError
from zoo.optim import check_reduce_dtype
from zoo.sharding import make_mesh
from zoo.train.experiment import experiment


@pytest.fixture(autouse=True)
def compiled_anew():
  """What comes from the cache of compiled programs leaves no trace of its passes."""
  enabled = jax.config.jax_enable_compilation_cache
  jax.config.update("jax_enable_compilation_cache", False)
  reset_cache()
  yield
  jax.config.update("jax_enable_compilation_cache", enabled)
  reset_cache()


def reduced(tmp_path, mesh, sharding, **optimizer):
  """What is summed over devices in a step, {(dtype, dimensions)}, as XLA's partitioner writes it for CPUs and all."""
  (tmp_path / "0.txt").write_text("abcd efg\n" * 300)
  path = tmp_path / "config.py"
  path.write_text(CONFIG.format(folder=tmp_path))
  config = with_defaults(read_config(path))
  config["model"] |= {"dim": 8, "num_heads": 2, "scan": True, "dtype": "bfloat16"}
  config["optimizer"] |= optimizer
  config["sharding"] = sharding
  built = experiment(ConfigDict(config).lock(), make_mesh(mesh))
  batch = {name: jax.ShapeDtypeStruct((8, *x.shape[1:]), x.dtype) for name, x in built.batches[0].items()}
  lowered = built.compiled_step().lower(built.shapes, batch)
  # Later, XLA's backend for CPUs makes float32 of all.
  lowered.compile({"xla_dump_to": str(tmp_path / "hlo"), "xla_dump_hlo_pass_re": "spmd-partitioning"})
  text = next((tmp_path / "hlo").glob("*after_spmd-partitioning*")).read_text()
  reductions = re.findall(r"= (\w+)\[([\d,]*)\]\S* (?:all-reduce|reduce-scatter)\(", text)
  return {(dtype, tuple(map(int, filter(None, size.split(","))))) for dtype, size in reductions}


MESHES = {"data": ({"data": 8}, "replicated"), "fsdp and tensor": ({"data": 4, "model": 2}, "fsdp+tensor")}


@pytest.mark.parametrize("mesh", MESHES)
def test_gradients_cross_devices_in_float32(tmp_path, mesh):
  axes, sharding = MESHES[mesh]
  sums = reduced(tmp_path, axes, sharding, accumulate=2 if mesh == "data" else 1)
  if mesh == "data":  # Else activations cross too, as tensor parallelism has it.
    assert {dtype for dtype, _ in sums} == {"f32"}
  assert ("f32", (260, 8)) in sums or ("f32", (130, 8)) in sums


def test_those_of_kernels_cross_in_bfloat16_where_one_wants_it(tmp_path):
  sums = reduced(tmp_path, {"data": 8}, "replicated", reduce_dtype="bfloat16")
  assert {len(size) for dtype, size in sums if dtype == "bf16"} >= {2, 3}
  assert {("bf16", (8, 32)), ("bf16", (32, 8)), ("bf16", (8, 2, 4))} <= sums
  assert not {("f32", (8, 32)), ("f32", (32, 8)), ("f32", (8, 2, 4))} & sums
  assert ("f32", (32,)) in sums  # A bias.


@pytest.mark.parametrize(
  "dtype, model, message",
  [
    ("float16", "bfloat16", "reduce_dtype is 'float16'. It may be: float32, bfloat16"),
    (None, None, "reduce_dtype is None"),
    ("bfloat16", None, "model.dtype float32: .* Set model.dtype to bfloat16"),
    ("bfloat16", "float16", "model.dtype float16"),
  ],
)
def test_what_cannot_be_is_refused_in_one_line(dtype, model, message):
  with pytest.raises(UserError, match=message) as error:
    check_reduce_dtype(dtype, model)
  assert "\n" not in str(error.value)
