"""Compile targets you don't have: topologies of TPU slices and GPU hosts."""

import dataclasses
import importlib.util
import math
import os
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies

from zoo.errors import UserError
from zoo.extras import install
from zoo.hosts.libtpu import NO_TPU


class Chip(NamedTuple):
  """Memory and bandwidth of one chip, in bytes and bytes per second.

  Attributes:
    memory: its size.
    memory_speed: memory bandwidth.
    link_speed: bandwidth to chips of its slice, or GPUs of its host, over all its links.
    network_speed: bandwidth to other chips: its share of its host's network cards.
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
# Slices that can be rented: https://cloud.google.com/tpu/docs/v5e and the other pages. Of v4 and v5p larger ones
# have multiples of 4.
FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
DEEP = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4")
TPUS = {"v4": DEEP, "v5e": FLAT, "v5p": DEEP, "v6e": FLAT}
LARGEST = {"v4": 4096, "v5p": 6144}  # Chips of a slice.
GPUS = {"h100": "NVIDIA H100 80GB HBM3", "h200": "NVIDIA H200"}
ON_A_HOST = 8  # GPUs.
EXAMPLES = (
  "GENERATION:TOPOLOGY, e.g. v5e:4x4, an accelerator type, e.g. v5litepod-16, several slices, e.g. 2*v5e:4x4, or "
  "GPUs, e.g. h100:8"
)

# A Hopper GPU as XLA needs it described: https://docs.nvidia.com/cuda/hopper-tuning-guide and the
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


class Target(NamedTuple):
  """The hardware of a plan: a number of TPU slices of a shape, or of GPU hosts.

  Attributes:
    name: a key of TPUS or GPUS.
    slices: number of slices; 1 for GPUs.
    shape: "4x4", or the number of GPUs.
  """

  name: str
  slices: int
  shape: str

  @property
  def chips(self) -> int:
    """The total number of chips."""
    return self.slices * math.prod(int(size) for size in self.shape.split("x"))

  def __str__(self):
    return f"{f'{self.slices}*' if self.slices > 1 else ''}{self.name}:{self.shape}"


def parse_target(text: str) -> Target:
  """Parses a target: "v5e:4x4", "2*v5p:4x4x4" or "h100:16". Capitals and blanks do not matter.

  Raises:
    UserError: there is no such target.
  """
  plain = "".join(text.lower().split())
  count, star, one = plain.rpartition("*")
  name, _, shape = (_of_accelerator_type(one) or one).partition(":")
  if name not in TPUS and name not in GPUS:  # Without suggestions: a100 is close to h100 only in spelling.
    raise UserError(f"--plan={text}: it must be {EXAMPLES}. Chips: {', '.join([*TPUS, *GPUS])}.")
  if name in GPUS:
    number = int(shape) if shape.isdecimal() else 0
    if star or number < 1 or (number > ON_A_HOST and number % ON_A_HOST):
      raise UserError(
        f"--plan={text}: {name}:8 is one host of 8 GPUs. More GPUs must be a multiple of {ON_A_HOST}, as in {name}:16."
      )
    return Target(name, 1, str(number))
  if star and not (count.isdecimal() and int(count)):
    raise UserError(f"--plan={text}: before * comes the number of slices, as in 2*{one}.")
  return Target(name, int(count or 1), _rentable(text, name, shape))


def _of_accelerator_type(name: str) -> str | None:
  """Parses an accelerator type, which counts cores of v4 and v5p: "v5litepod-16" -> "v5e:4x4", "v4-8" -> "v4:2x2x1"."""
  kind, _, count = name.partition("-")
  kind = "v5e" if kind == "v5litepod" else kind
  if kind not in TPUS or not count.isdecimal():
    return None
  chips = int(count) // (2 if TPUS[kind] is DEEP else 1)
  shapes = (shape for shape in TPUS[kind] if math.prod(map(int, shape.split("x"))) == chips)
  return f"{kind}:{next(shapes, count)}"


def _rentable(text: str, name: str, shape: str) -> str:
  """The topology of a slice in Google's notation."""
  sizes = sorted(int(size) if size.isdecimal() else 0 for size in shape.split("x"))
  for rentable in TPUS[name]:
    if sizes == sorted(map(int, rentable.split("x"))):
      return rentable
  most = LARGEST.get(name, 0)
  if len(sizes) == 3 and 0 < math.prod(sizes) <= most and not any(size % 4 for size in sizes):
    return "x".join(map(str, sizes))
  more = f", and larger ones of multiples of 4, up to {most} chips" if most else ""
  raise UserError(f"--plan={text}: {name} has no such slice. It has: {', '.join(TPUS[name])}{more}.")


@dataclasses.dataclass(frozen=True)
class NamedDevice:
  """A device by names and coordinates only: enough for shardings, not for compiling."""

  id: int
  slice_index: int
  platform: str
  coords: tuple[int, ...]
  core_on_chip: int = 0
  process_index: int = 0
  device_kind: str = "a name"


def named_devices(target: Target) -> list[Any]:
  """The chips of a target as `NamedDevice`s, for which no compiler need be installed."""
  use_cpu_backend()
  platform = "gpu" if target.name in GPUS else "tpu"
  coords = list(np.ndindex(*([*map(int, target.shape.split("x")), 1, 1][:3])))
  return [NamedDevice(id, id // len(coords), platform, coords[id % len(coords)]) for id in range(target.chips)]


def devices_of(target: Target) -> list[Any]:
  """The chips of a target, as devices to compile for.

  Raises:
    UserError: its compiler is not installed, or does not support it.
  """
  use_cpu_backend()
  try:
    return _gpus(target) if target.name in GPUS else _tpus(target)
  except UserError:
    raise
  except Exception as error:  # JAX, libtpu and the CUDA plugin raise different ones.
    raise UserError(f"--plan={target}: JAX cannot compile for it: {str(error).splitlines()[0]}") from error


def use_cpu_backend() -> None:
  """Makes JAX use the CPU backend, overriding the environment: otherwise it would wait for chips, or fail."""
  jax.config.update("jax_platforms", "cpu")


def _tpus(target: Target) -> list[Any]:
  if importlib.util.find_spec("libtpu") is None:
    raise UserError(f"--plan compiles with libtpu, which is not installed: {install('tpu')}.")
  # Otherwise libtpu queries the machine for its TPU, logs errors, and takes a lock.
  quiet = {**NO_TPU, "TPU_STDERR_LOG_LEVEL": "4", "TPU_MIN_LOG_LEVEL": "4", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
  for name, value in quiet.items():
    os.environ.setdefault(name, value)
  options: dict[str, Any] = {"num_slices": target.slices} if target.slices > 1 else {}
  if target.name == "v4":
    options["chip_config_name"] = "megacore"  # A chip is one device, as on Google's machines.
  if target.shape == "1x1":
    options["chips_per_host_bounds"] = (1, 1, 1)
  name = f"{target.name}:{target.shape}"
  return list(topologies.get_topology_desc(topology_name=name, platform="tpu", **options).devices)


def _gpus(target: Target) -> list[Any]:
  if not importlib.util.find_spec("jax_plugins") or not importlib.util.find_spec("jax_plugins.xla_cuda12"):
    raise UserError(f"--plan compiles with JAX's CUDA plugin, which is not installed: {install('cuda')}.")
  kind, gpus_per_host = GPUS[target.name], min(target.chips, ON_A_HOST)
  spec = HOPPER.format(kind=kind, memory=CHIPS[kind].memory, memory_speed=CHIPS[kind].memory_speed)
  hosts = f"1x{target.chips // gpus_per_host}x{gpus_per_host}"
  topology = topologies.get_topology_desc(target.name, platform="cuda", target_config=spec, topology=hosts)
  return list(topology.devices)


def network_of(device: Any) -> int:
  """The slice, or the GPU host, of a device: within it chips have links, between them a network."""
  return device.process_index if "NVIDIA" in device.device_kind else getattr(device, "slice_index", 0) or 0


def without_device(device: Any) -> dict[str, Any]:
  """Compiler options without the target device: XLA would benchmark its matmul kernels on a real GPU."""
  return {"xla_gpu_enable_triton_gemm": False} if "NVIDIA" in device.device_kind else {}
