"""FLOPs of a model, counted in its jaxpr, and peak FLOP/s of devices.

Both count as the field does: a multiplication and an addition are two FLOPs, and only matrix products and convolutions
count. Model FLOP/s utilisation = model FLOPs of a step / seconds of the step / peak FLOP/s of the devices
(PaLM, https://arxiv.org/abs/2204.02311, appendix B).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

# bfloat16 FLOP/s of one JAX device, without sparsity. JAX sees each of the two cores of a TPU v2, v3 or 7x chip as a
# device. TPU: https://cloud.google.com/tpu/docs/system-architecture-tpu-vm and the page of each generation.
TPU_PEAK = {
  "TPU v2": 45e12 / 2,
  "TPU v3": 123e12 / 2,
  "TPU v4": 275e12,
  "TPU v5 lite": 197e12,
  "TPU v5e": 197e12,
  "TPU v5": 459e12,
  "TPU v5p": 459e12,
  "TPU v6 lite": 918e12,
  "TPU v6e": 918e12,
  "TPU7x": 2307e12 / 2,
}
# NVIDIA's data sheets, tensor cores; the first name that occurs in the device's counts. V100 and T4, which have no
# bfloat16: float16.
GPU_PEAK = {
  "GB200": 2500e12,
  "B200": 2250e12,
  "H200": 989e12,
  "H100 PCIe": 756e12,
  "H100 NVL": 835e12,
  "H100": 989e12,
  "A100": 312e12,
  "L40S": 362e12,
  "L4": 121e12,
  "A10G": 70e12,
  "T4": 65e12,
  "V100": 125e12,
}


def count(function: Callable, *args: Any) -> int:
  """FLOPs of the matrix products and convolutions in `function(*args)`.

  A scan counts as often as it runs, a Pallas kernel as often as its grid has blocks, a `cond` as its most expensive
  branch, and a `while_loop`, whose length is unknown, as one iteration. What is recomputed in a backward pass
  because of rematerialisation counts again.

  Args:
    function: a function that `jax.jit` can trace; it is not run.
    *args: arrays or `jax.ShapeDtypeStruct`.
  """
  return _count(jax.make_jaxpr(function)(*args).jaxpr)


def training_flops(forward: Callable, *args: Any) -> int:
  """Model FLOPs of one training step: three times those of its forward pass `forward(*args)`.

  The backward pass has two products for every one of the forward pass, for the gradients of its input and its weight.
  Recomputed activations do not count, so MFU falls when rematerialisation is switched on.
  """
  return 3 * count(forward, *args)


def peak(device: jax.Device | None = None) -> float | None:
  """Peak bfloat16 FLOP/s of `device` (by default the first one); None for a CPU or an unlisted device."""
  return peak_of_kind((jax.devices()[0] if device is None else device).device_kind)


def peak_of_kind(kind: str) -> float | None:
  """Peak bfloat16 FLOP/s of a `device_kind`; None if it is not listed."""
  if kind in TPU_PEAK:
    return TPU_PEAK[kind]
  return next((flops for name, flops in GPU_PEAK.items() if name in kind), None)


def peak_of(devices: Iterable[jax.Device]) -> float | None:
  """Total peak FLOP/s of `devices`, e.g. of `mesh.devices.flat`; None if one is unknown."""
  peaks = [peak(device) for device in devices]
  flops_known = [flops for flops in peaks if flops is not None]
  return sum(flops_known) if len(flops_known) == len(peaks) else None


def _count(jaxpr: Any) -> int:
  total = 0
  for equation in jaxpr.eqns:
    name, params = equation.primitive.name, equation.params
    inner = [_count(program) for program in _programs(params)]
    if name == "dot_general":
      total += _dot_general(equation)
    elif name == "ragged_dot_general":
      total += _ragged_dot(equation)
    elif name == "conv_general_dilated":
      total += _convolution(equation)
    elif name == "scan":
      total += params["length"] * sum(inner)
    elif name == "cond":
      total += max(inner)
    elif name == "pallas_call":
      total += math.prod(params["grid_mapping"].grid) * sum(inner)  # Of one block.
    elif name == "shard_map":
      # The program of one device, run by all devices along the mapped axes.
      axes = params.get("newly_manual_axes", params.get("manual_axes"))  # Newer JAX, older JAX.
      total += math.prod(params["mesh"].shape[axis] for axis in axes) * sum(inner)
    else:  # jit, remat, custom_jvp, custom_vjp, while, ...
      total += sum(inner)
  return total


def _programs(params: dict[str, Any]) -> Iterator[Any]:
  """The jaxprs among the parameters of an equation, under any name."""
  for value in params.values():
    for item in value if isinstance(value, (tuple, list)) else (value,):
      program = getattr(item, "jaxpr", item)
      if hasattr(program, "eqns"):
        yield program


def _dot_general(equation: Any) -> int:
  (contracted, _), _ = equation.params["dimension_numbers"]
  left = equation.invars[0].aval.shape
  return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _ragged_dot(equation: Any) -> int:
  """FLOPs of `ragged_dot`: every row is multiplied by the kernel of its group."""
  (contracted, _), _ = equation.params["ragged_dot_dimension_numbers"].dot_dimension_numbers
  rows = equation.invars[0].aval.shape
  if len(equation.outvars[0].aval.shape) == len(rows):
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(rows[axis] for axis in contracted)
  # The kernels' gradient: rows of a group are contracted, so all rows together count once.
  return 2 * math.prod(rows) * equation.outvars[0].aval.shape[-1]


def _convolution(equation: Any) -> int:
  """FLOPs of a convolution: every output sums over the taps and input channels of one filter.

  Zeros between dilated inputs do not count.
  """
  params, filters = equation.params, equation.invars[1].aval.shape
  taps = math.prod(filters) // filters[params["dimension_numbers"].rhs_spec[0]]
  return 2 * math.prod(equation.outvars[0].aval.shape) * taps // math.prod(params["lhs_dilation"])
