"""XLA compiler options of the train step."""

import os
from collections.abc import Mapping

from jax.sharding import Mesh

# If parameters are sharded over a torus of three dimensions, or into shards smaller than a register, XLA would gather
# them by summing arrays that are zero elsewhere: twice the bytes, and kept from the forward to the backward pass
# (https://github.com/pytorch/xla/pull/6528). MaxText's scripts set the same.
ON_TPU = {
  "xla_enable_async_all_gather": "true",
  "xla_tpu_prefer_async_allgather_to_allreduce": True,
  "xla_tpu_enable_async_collective_fusion": True,
  "xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true",
}


def compiler_options(mesh: Mesh, environment: Mapping[str, str] = os.environ) -> dict[str, str | bool] | None:
  """Compiler options for `jax.jit` on the devices of a mesh. Those set in LIBTPU_INIT_ARGS are not overridden."""
  if mesh.size == 1 or mesh.devices.flat[0].platform != "tpu":
    return None
  chosen = environment.get("LIBTPU_INIT_ARGS", "")
  return {name: value for name, value in ON_TPU.items() if f"--{name}=" not in chosen}
