"""A step compiled ahead of time, so that compiling counts as such and not as training, and the memory that it needs."""

import time
from collections.abc import Hashable
from typing import Any

import jax

from zoo.progress import Speed


class Programs:
  """Runs a step and compiles it where a batch has shapes that none before it had.

  Args:
    step: (state, batch) -> a tuple, from `jax.jit`.
    speed: is told what is compilation, what is dispatch and what is waiting for devices.
  """

  def __init__(self, step: Any, speed: Speed):
    self._step, self._speed = step, speed
    self._compiled: dict[Hashable, Any] = {}
    self._seconds = 0.0

  def __call__(self, shapes: Hashable, state: Any, batch: Any) -> tuple:
    """The step's outputs, whose numbers are on their way.

    Args:
      shapes: those of the batch: equal ones share a program.
    """
    if shapes not in self._compiled:
      # What is under way is waited for first: while it compiles, the clock of training stands still.
      with self._speed.timed("device"):
        jax.block_until_ready(state)
      with self._speed.paused():
        before = time.perf_counter()
        self._compiled[shapes] = self._step.lower(state, batch).compile()
        self._seconds += time.perf_counter() - before
    with self._speed.timed("dispatch"):
      return self._compiled[shapes](state, batch)

  @property
  def compiled(self) -> list[Any]:
    """The programs, `jax.stages.Compiled`, as they came."""
    return list(self._compiled.values())

  def measure(self) -> dict[str, float]:
    """`{"seconds_compile": ...}` since the last call, if anything was compiled, and `memory`."""
    seconds, self._seconds = self._seconds, 0.0
    return {**({"seconds_compile": seconds} if seconds else {}), **memory(self.compiled)}


def memory(programs: list[Any]) -> dict[str, float]:
  """Bytes on the fullest of this host's devices.

  Returns:
    `{"memory_peak", "memory_in_use"}` where the platform counts them: since the process started, and now. Elsewhere, as
    on CPUs, `{"memory_program"}`: what the largest of the `programs` needs, says the compiler; {} if it says nothing.
  """
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  if all("peak_bytes_in_use" in found and "bytes_in_use" in found for found in stats):
    keys = {"memory_peak": "peak_bytes_in_use", "memory_in_use": "bytes_in_use"}
    return {name: float(max(found[key] for found in stats)) for name, key in keys.items()}
  analyses = [found for program in programs if (found := program.memory_analysis()) is not None]
  needed = [
    found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes + found.temp_size_in_bytes
    for found in analyses
  ]
  return {"memory_program": float(max(needed))} if needed else {}
