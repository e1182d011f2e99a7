import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from zoo.errors import UserError, exits_with_one_line
from zoo.perf import memory

MESH = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
SHAPES = {"w": jax.ShapeDtypeStruct((8, 2**20), jnp.float32), "step": jax.ShapeDtypeStruct((), jnp.int32)}


@pytest.mark.parametrize("axis, devices", [("data", 1), (None, 8)])
def test_a_state_that_no_memory_holds_is_refused_before_it_is_made(monkeypatch, axis, devices):
  placed = {"w": NamedSharding(MESH, P(axis)), "step": NamedSharding(MESH, P())}
  needs = devices * 32 * 2**20 + 8 * 4
  monkeypatch.setattr(memory, "host_memory", lambda: needs)
  memory.check_state(SHAPES, placed)
  monkeypatch.setattr(memory, "host_memory", lambda: needs - 1)
  with pytest.raises(UserError, match=r"need 0\.\d+ GiB of the memory of a device, which has .*sharding=fsdp.*--plan"):
    memory.check_state(SHAPES, placed)


def test_a_batch_that_no_memory_holds_is_refused_before_it_is_made():
  row = {"image": np.zeros((1, 8, 8, 3), np.uint8)}
  memory.check_batch(row, 1000)
  with pytest.raises(UserError, match="1,000,000,000,000 rows of a batch need 178,814 GiB .* Lower batch_size"):
    memory.check_batch(row, 10**12)


@pytest.mark.parametrize(
  "fails, says",
  [
    (lambda: np.zeros(2**60, np.int8), "Out of memory: Unable to allocate 1.00 EiB"),
    (lambda: jnp.zeros(2**55, jnp.int8).block_until_ready(), "Out of memory allocating 36028797018963968"),
  ],
)
def test_memory_that_is_too_small_ends_a_program_in_one_line_with_ways_out(capsys, fails, says):
  with pytest.raises(SystemExit) as end:
    exits_with_one_line(lambda argv: fails())([])
  (line,) = capsys.readouterr().err.splitlines()
  assert end.value.code == 2 and says in line and "--config.sharding=fsdp" in line
