"""Learning-rate schedules: a linear warm-up from 0, then one of SCHEDULES."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

from zoo.config.registry import check_options
from zoo.errors import UserError, did_you_mean, shown

Schedule = Callable[[Any], Any]


def constant(peak: float, steps: int, *, end: float) -> Schedule:
  """Constant at the peak. `end` has no effect."""
  return optax.constant_schedule(peak)


def linear(peak: float, steps: int, *, end: float) -> Schedule:
  """Linear decay from the peak to `end` times the peak."""
  return optax.linear_schedule(peak, end * peak, steps)


def cosine(peak: float, steps: int, *, end: float) -> Schedule:
  """Cosine decay from the peak to `end` times the peak (https://arxiv.org/abs/1608.03983, one cycle)."""
  return optax.cosine_decay_schedule(peak, steps, alpha=end)


def exponential(peak: float, steps: int, *, end: float) -> Schedule:
  """Exponential decay from the peak to `end` times the peak; `end` may not be 0.

  Raises:
    UserError: end is not above 0.
  """
  if end <= 0:
    raise UserError(f"optimizer.end is {end}. The exponential schedule needs an end above 0, e.g. 0.01.")
  return optax.exponential_decay(peak, steps, end)


def inverse_sqrt(peak: float, steps: int, *, end: float, timescale: int) -> Schedule:
  """Inverse square root decay: peak * sqrt(timescale / (timescale + t)), not below `end` times the peak.

  With the timescale equal to warmup_steps this is peak * sqrt(warmup_steps / step) of https://arxiv.org/abs/1706.03762.

  Raises:
    UserError: timescale is below 1.
  """
  if timescale < 1:
    raise UserError(
      f"schedule inverse_sqrt: timescale is {timescale}. It must be 1 or more; by default it is warmup_steps."
    )
  return lambda t: peak * jnp.maximum(jnp.sqrt(timescale / (timescale + jnp.maximum(t, 0))), end)


def wsd(peak: float, steps: int, *, end: float, decay_steps: int) -> Schedule:
  """Warm-up, stable, decay: constant at the peak, then linear to `end` times the peak in the last `decay_steps`.

  Source: MiniCPM, https://arxiv.org/abs/2404.06395.

  Raises:
    UserError: decay_steps is not from 1 to the steps after the warm-up.
  """
  if not 0 < decay_steps <= steps:
    raise UserError(
      f"schedule wsd: decay_steps is {decay_steps}. It must be from 1 to {steps}, the steps after the warm-up."
    )
  return optax.linear_schedule(peak, end * peak, decay_steps, transition_begin=steps - decay_steps)


SCHEDULES = {f.__name__: f for f in (constant, linear, cosine, exponential, inverse_sqrt, wsd)}


def make_schedule(
  steps: int, learning_rate: float, *, schedule: Any = "cosine", warmup_steps: int = 0, end: float = 0.0
) -> Schedule:
  """Builds a schedule, step -> learning rate: 0 to `learning_rate` in `warmup_steps`, then `schedule` over the rest.

  Args:
    steps: length of the run.
    learning_rate: the peak.
    schedule: a name of SCHEDULES, or {"name": ..., options}: inverse_sqrt takes `timescale` (default: warmup_steps),
      wsd takes `decay_steps` (default: a tenth of the run).
    warmup_steps: steps of the warm-up; step 0 then has a learning rate of 0. A shorter run ends during the warm-up.
    end: the final learning rate as a fraction of the peak, 0 to 1.

  Raises:
    UserError: for an unknown name or option, or a value out of its range.
  """
  check(steps >= 1, "steps", steps, "1 or more")
  check(0 <= learning_rate < math.inf, "optimizer.learning_rate", learning_rate, "0 or more, and finite")
  check(0 <= warmup_steps < 2**31, "optimizer.warmup_steps", warmup_steps, "0 or more, and below 2**31")
  check(0 <= end <= 1, "optimizer.end", end, "from 0 to 1: a fraction of the learning rate")
  options: dict[str, Any] = {"name": schedule} if not hasattr(schedule, "keys") else {**schedule}
  name = options.pop("name", None)
  if not isinstance(name, str) or name not in SCHEDULES:
    near = did_you_mean(str(name), SCHEDULES)
    raise UserError(f"There is no schedule {shown(name)}.{near} There are: {', '.join(SCHEDULES)}.")
  defaults = {
    "inverse_sqrt": {"timescale": warmup_steps},
    "wsd": {"decay_steps": max(1, min(steps // 10, steps - warmup_steps))},
  }
  options = {**defaults.get(name, {}), **options}
  check_options(SCHEDULES[name], options, f"schedule {name}", supplied=("peak", "steps", "end"))
  after = SCHEDULES[name](learning_rate, max(steps - warmup_steps, 1), end=end, **options)
  if warmup_steps == 0:
    return after
  return optax.join_schedules([optax.linear_schedule(0.0, learning_rate, warmup_steps), after], [warmup_steps])


def check(is_valid: bool, what: str, value: Any, expected: str) -> None:
  """Raises a UserError unless `is_valid`."""
  if not is_valid:
    raise UserError(f"{what} is {shown(value)}. It must be {expected}.")
