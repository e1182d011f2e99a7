"""Chips that are not here, as devices to compile for: slices of TPUs and hosts of GPUs."""

import importlib.util
import os
import re
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from zoo.errors import UserError, did_you_mean


class Chip(NamedTuple):
  """Of one chip: bytes of memory, and bytes per second.

  Attributes:
    memory: bytes it has.
    memory_speed: from and to it.
    link_speed: what it sends to chips of its slice, or GPUs of its host, over all its links together.
    network_speed: what it sends to others: its part of its host's network cards.
  """

  memory: int
  memory_speed: float
  link_speed: float
  network_speed: float


# By JAX's device_kind. TPU: https://cloud.google.com/tpu/docs/system-architecture-tpu-vm and the page of each
# generation; the network of a pod / its chips, of v4 and v5p from https://jax-ml.github.io/scaling-book/tpus. GPU:
# NVIDIA's data sheets, half of NVLink's 900 GB/s each way, and one 400 Gbit/s card a GPU as in a DGX.
CHIPS = {
  "TPU v4": Chip(32 * 2**30, 1228e9, 300e9, 6.25e9),
  "TPU v5 lite": Chip(16 * 2**30, 819e9, 200e9, 3.125e9),
  "TPU v5": Chip(95 * 2**30, 2765e9, 600e9, 6.25e9),
  "TPU v6 lite": Chip(32 * 2**30, 1640e9, 448e9, 12.5e9),
  "NVIDIA H100 80GB HBM3": Chip(79 * 2**30, 3352e9, 450e9, 50e9),
  "NVIDIA H200": Chip(140 * 2**30, 4800e9, 450e9, 50e9),
}
TPUS = ("v4", "v5e", "v5p", "v6e")
GPUS = {"h100": "NVIDIA H100 80GB HBM3", "h200": "NVIDIA H200"}
ON_A_HOST = 8  # GPUs.
EXAMPLES = "a generation and a shape, e.g. v5e:4x4, several slices of it, e.g. 2*v5e:4x4, or GPUs, e.g. h100:8"

# What XLA asks of a GPU of Hopper's before it compiles for it: https://docs.nvidia.com/cuda/hopper-tuning-guide and the
# CUDA C++ Programming Guide, table of technical specifications per compute capability. Versions: of cuDNN, at least.
HOPPER = """
gpu_device_info {{
  cuda_compute_capability {{ major: 9 minor: 0 }}
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  device_memory_size: {memory} memory_bandwidth: {memory_speed:.0f} l2_cache_size: 52428800
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 patch: 0 }}
device_description_str: "{kind}"
"""


def devices_of(target: str) -> list[Any]:
  """The chips of "v5e:4x4", "2*v5p:4x4x4" or "h100:16", as devices to compile for.

  Raises:
    UserError: there is no such target, or what compiles for it is not installed.
  """
  kind = re.fullmatch(r"(?:\d+\*)?([^:*]*)(?::.*)?", target)
  name = kind[1] if kind else target
  if name not in TPUS and name not in GPUS or ":" not in target:
    near = did_you_mean(name, [*TPUS, *GPUS])
    raise UserError(f"--plan={target}: it must be {EXAMPLES}.{near} There are: {', '.join([*TPUS, *GPUS])}.")
  if "JAX_PLATFORMS" not in os.environ:
    jax.config.update("jax_platforms", "cpu")  # Else JAX looks for chips that are not here, and says so.
  return _gpus(target, name) if name in GPUS else _tpus(target)


def _tpus(target: str) -> list[Any]:
  if importlib.util.find_spec("libtpu") is None:
    raise UserError("--plan compiles with libtpu, which is not installed: pip install 'flax-zoo[tpu]'.")
  # Else libtpu asks the machine which TPU it is, complains of what it does not hear, and wants to be alone.
  quiet = {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5e-1", "TPU_WORKER_HOSTNAMES": "localhost"}
  quiet |= {"TPU_STDERR_LOG_LEVEL": "4", "TPU_MIN_LOG_LEVEL": "4", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
  for name, value in quiet.items():
    os.environ.setdefault(name, value)
  count, _, one = target.rpartition("*")
  options: dict[str, Any] = {"num_slices": int(count)} if count and int(count) > 1 else {}
  if one.startswith("v4"):
    options["chip_config_name"] = "megacore"  # A chip is one device, as on Google's machines.
  try:
    return list(topologies.get_topology_desc(topology_name=one, platform="tpu", **options).devices)
  except Exception as error:  # JAX and libtpu each have their own.
    raise UserError(f"--plan={target}: there is no such slice: {str(error).splitlines()[0]}") from error


def _gpus(target: str, name: str) -> list[Any]:
  count = target.partition(":")[2]
  number = int(count) if count.isdecimal() else 0
  if "*" in target or number < 1 or (number > ON_A_HOST and number % ON_A_HOST):
    raise UserError(f"--plan={target}: {name}:8 is 8 GPUs of a host; more than that must be a multiple of {ON_A_HOST}.")
  if not importlib.util.find_spec("jax_plugins") or not importlib.util.find_spec("jax_plugins.xla_cuda12"):
    raise UserError("--plan compiles with JAX's CUDA plugin, which is not installed: pip install 'flax-zoo[cuda]'.")
  chip, own = CHIPS[GPUS[name]], min(number, ON_A_HOST)
  spec = HOPPER.format(kind=GPUS[name], memory=chip.memory, memory_speed=chip.memory_speed)
  try:
    found = topologies.get_topology_desc(name, platform="cuda", target_config=spec, topology=f"1x{number // own}x{own}")
  except Exception as error:  # As above.
    raise UserError(f"--plan={target}: JAX cannot compile for it: {str(error).splitlines()[0]}") from error
  return list(found.devices)


def network_of(device: Any) -> int:
  """Of which slice, or of which host of GPUs, a device is: within it chips have links, between them a network."""
  return device.process_index if "NVIDIA" in device.device_kind else getattr(device, "slice_index", 0) or 0


def compiler_options(device: Any) -> dict[str, Any]:
  """What to compile with where no such device is at hand: XLA times its own kernels for products on a real GPU."""
  return {"xla_gpu_enable_triton_gemm": False} if "NVIDIA" in device.device_kind else {}
