"""Throughput of a run and the breakdown of its step time."""

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Mapping
from typing import Any


class Speed:
  """Throughput meter: measures between two calls of `measure`, excluding time inside `paused`.

  Args:
    step: steps done so far.
    peak: peak FLOP/s of all devices together; None (a CPU, an unknown device) omits `mfu`.
  """

  def __init__(self, step: int, *, peak: float | None = None):
    self.peak = peak
    self.step, self.since = step, time.perf_counter()
    self.done: Counter[str] = Counter()
    self.spent: defaultdict[str, float] = defaultdict(float)

  def add(self, amounts: Mapping[str, float], *, flops: float = 0) -> None:
    """Counts one step.

    Args:
      amounts: amounts processed, e.g. `{"tokens": 3072}`, which differ between batches.
      flops: its model FLOPs, all devices together (`zoo.perf.flops`); 0 if unknown.
    """
    self.done.update({**amounts, "flops": flops})

  def measure(self, step: int) -> dict[str, float]:
    """`{"seconds_per_step", "seconds_data", ..., "examples_per_second", ..., "mfu"}` since the last call.

    `seconds_NAME` is the time per step in `timed(NAME)`.

    Call it after waiting for the loss of `step`: JAX dispatches ahead, and only awaited work is timed.
    `mfu` is the model FLOP/s utilisation, a fraction (PaLM, https://arxiv.org/abs/2204.02311, appendix B).
    """
    now = time.perf_counter()
    steps, seconds = step - self.step, now - self.since
    if steps <= 0 or seconds <= 0:
      return {}
    self.step, self.since = step, now
    measured = {"seconds_per_step": seconds / steps}
    measured |= {f"seconds_{name}": spent / steps for name, spent in self.spent.items()}
    self.spent.clear()
    work = self.done.pop("flops", 0)
    measured |= {f"{name}_per_second": count / seconds for name, count in self.done.items()}
    self.done.clear()
    if work and self.peak:
      measured["mfu"] = work / seconds / self.peak
    return measured

  @contextlib.contextmanager
  def paused(self) -> Generator[None]:
    """Context whose time (evaluation, waiting for a checkpoint) is excluded."""
    before = time.perf_counter()
    yield
    self.since += time.perf_counter() - before

  @contextlib.contextmanager
  def timed(self, part: str) -> Generator[None]:
    """Context whose time counts as a part of the step: "data", "dispatch", "device"."""
    before = time.perf_counter()
    yield
    self.spent[part] += time.perf_counter() - before


def amounts(batch: Mapping[str, Any], hosts: int = 1) -> dict[str, float]:
  """Units of work in a batch: examples if it has images, else tokens, of inputs and targets.

  Padding does not count. If hosts read parts of a batch, the others' parts are assumed equal to this host's.

  Args:
    batch: arrays of this host; `valid` and `target_valid`, if present, mark real tokens.
    hosts: number of hosts that read one part each.
  """
  if "image" in batch:
    return {"examples": len(batch["image"]) * hosts}
  sides = [side for side in ("", "target_") if f"{side}tokens" in batch]
  real = (batch[f"{side}valid"].sum() if f"{side}valid" in batch else batch[f"{side}tokens"].size for side in sides)
  return {"tokens": int(sum(real)) * hosts}
