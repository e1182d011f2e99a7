"""Steps that went wrong: a loss or a gradient that is not finite, or a loss far above what it was.

Whether a step is bad is decided inside the compiled step, from numbers that are part of the training state: a resumed
run decides as an uninterrupted one. The loop hears of it some steps later, so that it never waits for a device.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from zoo.errors import UserError, shown

WARMUP = 20  # Good steps before a loss can be a spike.
DECAY = 0.98  # Of the running mean: about the last 50 good steps.
LAG = 8  # Steps that may be under way when a loss is looked at.

State = dict[str, jax.Array]


def check_spike(spike: Any) -> float | None:
  """UserError for a `bad_loss.spike` that cannot be one."""
  largest = float(jnp.finfo(jnp.float32).max)
  if spike is None or (isinstance(spike, int | float) and not isinstance(spike, bool) and 1 < spike < largest):
    return spike
  raise UserError(f"bad_loss.spike is {shown(spike)}. It must be a number above 1, e.g. 3.0, or none.")


def init() -> State:
  """What is known before the first step: running mean of the loss, good steps, bad ones in a row, steps skipped."""
  zero = jnp.zeros((), jnp.int32)
  return {"mean": jnp.zeros((), jnp.float32), "good": zero, "in_a_row": zero, "skipped": zero}


def is_bad(state: State, loss: jax.Array, norm: jax.Array, spike: float | None) -> jax.Array:
  """bool []: the loss or the gradient's norm is not finite, or loss > spike * running mean of a loss above 0."""
  bad = ~(jnp.isfinite(loss) & jnp.isfinite(norm))
  if spike is not None:
    bad |= (state["good"] >= WARMUP) & (state["mean"] > 0) & (loss > spike * state["mean"])
  return bad


def updated(state: State, loss: jax.Array, bad: jax.Array, skips: bool) -> State:
  """The state after a step. Good step n, from 0, makes the mean d mean + (1 - d) loss, d = min(0.98, n / (9 + n))."""
  n = state["good"]
  d = jnp.minimum(DECAY, n / (9 + n))
  return {
    "mean": jnp.where(bad, state["mean"], d * state["mean"] + (1 - d) * loss).astype(jnp.float32),
    "good": n + ~bad,
    "in_a_row": jnp.where(bad, state["in_a_row"] + 1, 0),
    "skipped": state["skipped"] + (bad & skips),
  }


def select(bad: jax.Array, old: Any, new: Any) -> Any:
  """The tree `old` if the step was bad, else `new`."""
  return jax.tree.map(lambda a, b: jnp.where(bad, a, b), old, new)


def check_finite(params: Any, step: int, shared: Any = None) -> None:
  """UserError if the parameters are not finite, which may come of an update though losses and gradients were.

  To be called before they are saved: a checkpoint of them would take the place of a good one.

  Args:
    params: of the model.
    step: the last one.
    shared: statistics or the like that the model carries besides; None: nothing.
  """
  for what, tree in (("The parameters are", params), ("What the model carries is", shared)):
    if tree is None or _all_finite(tree):
      continue
    raise UserError(
      f"{what} not finite after step {step}, though its loss and gradient were. Nothing of it was saved. "
      "Lower optimizer.learning_rate or set optimizer.clip_norm, in a new workdir."
    )


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
  return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


class LossGuard:
  """Looks at steps that are done and does what `action` says about a bad one.

  Args:
    action: "stop", "skip" (the compiled step has left the state as it was) or "roll_back".
    spike: as it was given to the step; for messages.
    most_in_a_row: bad steps on end, or times to roll back to the same checkpoint, after which the run stops.
    keep: saves the batch of a step for replay and returns where it is.
    note: is told.
  """

  def __init__(
    self,
    action: str,
    spike: float | None,
    most_in_a_row: int,
    *,
    keep: Callable[[int], Any],
    note: Callable[[str], Any],
  ):
    self.action, self.spike, self.most = action, spike, most_in_a_row
    self._keep, self._note = keep, note
    self._pending: deque[tuple[int, Mapping[str, Any]]] = deque()

  def observe(self, step: int, guarded: Mapping[str, jax.Array], *, wait: bool) -> int | None:
    """Takes in what the compiled step said of `step`, and waits for that of LAG steps before, or of all if `wait`.

    Returns:
      The bad step whose effects must be undone, if there is one; all steps after it are forgotten.

    Raises:
      UserError: the run is to stop.
    """
    for value in guarded.values():
      value.copy_to_host_async()
    self._pending.append((step, guarded))
    while self._pending and (wait or len(self._pending) > LAG):
      step, guarded = self._pending.popleft()
      if guarded["bad"]:
        self._tell(step, {name: float(value) for name, value in guarded.items()})
        if self.action == "roll_back":
          self._pending.clear()
          return step
    return None

  def _tell(self, step: int, found: Mapping[str, float]) -> None:
    where = self._keep(step)
    what = f"The loss is {found['loss']:g}, the gradient's norm {found['grad_norm']:g} at step {step}"
    if math.isfinite(found["loss"]) and math.isfinite(found["grad_norm"]):
      what = f"The loss is {found['loss']:g} at step {step}, its running mean {found['mean']:g}"
    replay = f"Its batch is in {where} (--replay={where} looks into it)."
    if self.action == "stop":
      raise UserError(
        f"{what}. {replay} Lower optimizer.learning_rate or set optimizer.clip_norm in a new workdir, or go on with "
        "--config.bad_loss.action=skip or roll_back."
      )
    if found["in_a_row"] >= self.most:
      raise UserError(
        f"{what}, the last of {found['in_a_row']:.0f} bad steps on end (bad_loss.most_in_a_row). {replay} Lower "
        "optimizer.learning_rate or set optimizer.clip_norm in a new workdir."
      )
    self._note(f"{what}. {'Skipped.' if self.action == 'skip' else 'Rolling back.'} {replay}")


def rolled_back(state: Mapping[str, Any], step: int) -> dict[str, Any]:
  """The state of a checkpoint as that after the bad `step`: what lies between has taught nothing and is passed over."""
  guard = {**state["guard"], "in_a_row": state["guard"]["in_a_row"] + 1}
  return {**state, "step": jnp.asarray(step, state["step"].dtype), "guard": guard}


def roll_back(saver: Any, shapes: Any, step: int) -> dict[str, Any]:
  """Goes back to the newest checkpoint and saves it as that of the bad `step`, from where the run goes on.

  So what is passed over does not depend on when the loop heard of the step, or on interruptions: one before that save
  comes to the same bad step again.

  Args:
    saver: `zoo.checkpoints.manager.Checkpoints`.
    shapes: of the state, with shardings.
    step: the bad one.
  """
  state, _ = saver.restore(shapes)
  placed = jax.tree.map(lambda x: x.sharding, state)
  state = jax.jit(rolled_back, static_argnums=1, out_shardings=placed, donate_argnums=0)(state, step)
  saver.save(step, state, wait=True)
  return state
