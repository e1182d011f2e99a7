"""Ahead-of-time compilation of the train step, with separate compile time, and its memory use."""

import time
from collections.abc import Hashable
from typing import Any

import jax

from zoo.perf.speed import Speed


class CompiledSteps:
  """A step compiled ahead of time, once per set of batch shapes.

  Args:
    step: (state, batch, ...) -> a tuple, from `jax.jit`.
    speed: records the time of compilation, of dispatch and of waiting for devices.
  """

  def __init__(self, step: Any, speed: Speed):
    self._step, self._speed = step, speed
    self._compiled: dict[Hashable, Any] = {}
    self._seconds, self._needed = 0.0, 0

  def __call__(self, shapes: Hashable, state: Any, batch: Any, *more: Any) -> tuple:
    """Dispatches the step and returns its outputs, asynchronous arrays.

    Args:
      shapes: of the batch; equal ones share a program.
      *more: further arguments of the step, always of the same shapes.
    """
    if shapes not in self._compiled:
      # Wait for running steps first: compile time is excluded from training time.
      with self._speed.timed("device"):
        jax.block_until_ready(state)
      with self._speed.paused():
        before = time.perf_counter()
        self._compiled[shapes] = program = self._step.lower(state, batch, *more).compile()
        self._seconds += time.perf_counter() - before
        self._needed = max(self._needed, needed(program, jax.default_backend()))  # Cached: the call is slow.
    with self._speed.timed("dispatch"):
      return self._compiled[shapes](state, batch, *more)

  @property
  def compiled(self) -> list[Any]:
    """The compiled programs, `jax.stages.Compiled`, in order of compilation."""
    return list(self._compiled.values())

  def measure(self) -> dict[str, float]:
    """`{"seconds_compile": ...}` since the last call, if anything was compiled, and memory use in bytes.

    If the platform reports them: `memory_peak` and `memory_in_use`, since the process started and now, on the fullest
    of this host's devices. Elsewhere, as on CPUs, `memory_program`: bytes per device of the largest program so far.
    """
    seconds, self._seconds = self._seconds, 0.0
    measured = memory() or ({"memory_program": float(self._needed)} if self._needed else {})
    return {**({"seconds_compile": seconds} if seconds else {}), **measured}


def memory() -> dict[str, float]:
  """`{"memory_peak", "memory_in_use"}`, bytes on the fullest of this host's devices; {} if they do not report it."""
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  keys = {"memory_peak": "peak_bytes_in_use", "memory_in_use": "bytes_in_use"}
  if not all(key in device_stats for device_stats in stats for key in keys.values()):
    return {}
  return {name: float(max(device_stats[key] for device_stats in stats)) for name, key in keys.items()}


def needed(program: Any, platform: str = "") -> int:
  """Bytes per device that a compiled program needs, as the compiler reports; 0 if it does not.

  Arguments and results (donated ones count once) and all temporaries.

  Args:
    program: `jax.stages.Compiled`.
    platform: "tpu" if it is compiled for TPUs. There XLA's sum of temporaries is more than is in
      memory at a time, by a third for a GPT-2; its peak agrees with its own memory report to a thousandth.
  """
  analysis = program.memory_analysis()
  if analysis is None:
    return 0
  peak = getattr(analysis, "peak_memory_in_bytes", 0)  # JAX 0.7 has none.
  if platform == "tpu" and peak:
    return peak
  return (
    analysis.argument_size_in_bytes
    + analysis.output_size_in_bytes
    - analysis.alias_size_in_bytes
    + analysis.temp_size_in_bytes
  )
