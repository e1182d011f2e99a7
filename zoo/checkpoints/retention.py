"""Checkpoint retention: the newest, the best, and the last verified one stay."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from zoo.errors import UserError, did_you_mean


class NewestAndBest:
  """Keeps the last `newest` checkpoints, the one with the best finite value of its metric, and `verified`.

  Attributes:
    verified: the step of the last checkpoint that was read back intact. It is kept until a later one is: newer
      checkpoints have been written, but not yet read back from the disk.
  """

  def __init__(self, newest: int):
    self.newest = newest
    self.verified: int | None = None

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
    """Orbax's preservation policy: for every checkpoint, in order of step, whether to keep it."""
    preserved = {checkpoint.step for checkpoint in checkpoints[-self.newest :]} | {self.verified}
    preserved.add(best_step({checkpoint.step: checkpoint.metrics for checkpoint in checkpoints}))
    return [checkpoint.step in preserved for checkpoint in checkpoints]


def best_step(scores: Mapping[int, Mapping[str, Any] | None]) -> int | None:
  """The step whose stored score is best, the newest of equals; None if no step has a finite one.

  If the metric was changed during the run, only scores of the newest one count.
  """
  finite = {n: score for n, score in scores.items() if score and score["value"] is not None}
  finite = {n: score for n, score in finite.items() if math.isfinite(score["value"])}
  if not finite:
    return None
  name, mode = (finite[max(finite)][key] for key in ("name", "mode"))
  values = {n: score["value"] for n, score in finite.items() if (score["name"], score["mode"]) == (name, mode)}
  return max(values, key=lambda n: (values[n] if mode == "max" else -values[n], n))


def check_measured(best: str, metrics: Collection[str]) -> None:
  """UserError unless `metrics` has the name that a config gives as `checkpoint.best`."""
  if best not in metrics:
    near = did_you_mean(best, metrics)
    raise UserError(f"checkpoint.best is '{best}', never measured.{near} There is: {', '.join(metrics) or 'nothing'}.")
