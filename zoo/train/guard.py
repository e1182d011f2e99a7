"""Guard against bad steps: a loss or gradient that is not finite, or a loss spike.

Whether a step is bad is decided inside the compiled step, from values in the training state: a resumed
run decides as an uninterrupted one. The loop reads it some steps later, so that it never waits for a device.
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
LAG = 8  # Number of steps that may be in flight when a loss is checked.

State = dict[str, jax.Array]


def check_spike(spike: Any) -> float | None:
  """UserError unless `bad_loss.spike` is None or a number above 1."""
  largest = float(jnp.finfo(jnp.float32).max)
  if spike is None or (isinstance(spike, int | float) and not isinstance(spike, bool) and 1 < spike < largest):
    return spike
  raise UserError(f"bad_loss.spike is {shown(spike)}. It must be a number above 1, e.g. 3.0, or None.")


def init() -> State:
  """Initial guard state: running mean of the loss, good steps, consecutive bad steps, skipped steps."""
  zero = jnp.zeros((), jnp.int32)
  return {"mean": jnp.zeros((), jnp.float32), "good": zero, "in_a_row": zero, "skipped": zero}


def is_bad(state: State, loss: jax.Array, norm: jax.Array, spike: float | None) -> jax.Array:
  """bool []: the loss or the gradient's norm is not finite, or loss > spike * running mean of a loss above 0."""
  bad = ~(jnp.isfinite(loss) & jnp.isfinite(norm))
  if spike is not None:
    bad |= (state["good"] >= WARMUP) & (state["mean"] > 0) & (loss > spike * state["mean"])
  return bad


def updated(state: State, loss: jax.Array, bad: jax.Array, skips: bool) -> State:
  """The state after a step with this loss, float32 [].

  Good step n, from 0, updates mean = d mean + (1 - d) loss, d = min(0.98, n / (9 + n)).

  Args:
    state: from `initial` or an earlier call.
    loss: of the step. bad: bool [], whether it was bad.
    skips: whether the update of a bad step is left out.
  """
  n = state["good"]
  d = jnp.minimum(DECAY, n / (9 + n))
  return {
    "mean": jnp.where(bad, state["mean"], d * state["mean"] + (1 - d) * loss).astype(jnp.float32),
    "good": n + ~bad,
    "in_a_row": jnp.where(bad, state["in_a_row"] + 1, 0),
    "skipped": state["skipped"] + (bad & skips),
  }


def select(bad: jax.Array, old: Any, new: Any) -> Any:
  """The tree `old` if the step was bad (bool scalar), else `new`, of the same shapes and dtypes; traceable."""
  return jax.tree.map(lambda a, b: jnp.where(bad, a, b), old, new)


def check_finite(params: Any, step: int, shared: Any = None) -> None:
  """UserError if the parameters are not finite, as after an overflowing update of finite gradients.

  To be called before saving, so that no checkpoint of them replaces a good one.

  Args:
    params: the model's.
    step: the last one.
    shared: the shared collections that the model carries; None: none.
  """
  for what, tree in (("The parameters are", params), ("What the model carries is", shared)):
    if tree is None or _all_finite(tree):
      continue
    raise UserError(
      f"{what} not finite after step {step}, though its loss and gradient were. It was not saved. Lower "
      "optimizer.learning_rate or set optimizer.clip_norm, in a new workdir."
    )


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
  return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


class LossGuard:
  """Watches the loss of finished steps, and applies `action` to bad ones.

  Args:
    action: "stop", "skip" (the compiled step has left the state as it was) or "roll_back".
    spike: threshold of the step, for messages.
    most_in_a_row: consecutive bad steps, or rollbacks to the same checkpoint, after which the run stops.
    keep: saves the batch of a step for replay and returns its path.
    note: called with messages.
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

  def observe(self, step: int, health: Mapping[str, jax.Array], *, wait: bool) -> int | None:
    """Queues the health of `step`, and checks that of LAG steps before, or of all if `wait`.

    health: scalars of the step: "bad", "loss", "grad_norm", "mean" and "in_a_row"; copied to the host asynchronously.

    Returns:
      The bad step whose effects must be undone, if there is one; all steps after it are forgotten.

    Raises:
      UserError: the run is to stop.
    """
    for value in health.values():
      value.copy_to_host_async()
    self._pending.append((step, health))
    while self._pending and (wait or len(self._pending) > LAG):
      step, health = self._pending.popleft()
      if health["bad"]:
        self._tell(step, {name: float(value) for name, value in health.items()})
        if self.action == "roll_back":
          self._pending.clear()
          return step
    return None

  def _tell(self, step: int, health: Mapping[str, float]) -> None:
    where = self._keep(step)
    what = f"The loss is {health['loss']:g}, the gradient's norm {health['grad_norm']:g} at step {step}"
    if math.isfinite(health["loss"]) and math.isfinite(health["grad_norm"]):
      what = f"The loss is {health['loss']:g} at step {step}, its running mean {health['mean']:g}"
    replay = f"Its batch is in {where} (--replay={where} analyses it)."
    if self.action == "stop":
      raise UserError(
        f"{what}. {replay} Lower optimizer.learning_rate or set optimizer.clip_norm in a new workdir, or resume with "
        "--config.bad_loss.action=skip or roll_back."
      )
    if health["in_a_row"] >= self.most:
      raise UserError(
        f"{what}, the last of {health['in_a_row']:.0f} consecutive bad steps (bad_loss.most_in_a_row). {replay} Lower "
        "optimizer.learning_rate or set optimizer.clip_norm in a new workdir."
      )
    self._note(f"{what}. {'Skipped.' if self.action == 'skip' else 'Rolling back.'} {replay}")


def rolled_back(state: Mapping[str, Any], step: int) -> dict[str, Any]:
  """The state of a checkpoint as the state after the bad `step`: the steps between are skipped."""
  guard = {**state["guard"], "in_a_row": state["guard"]["in_a_row"] + 1}
  return {**state, "step": jnp.asarray(step, state["step"].dtype), "guard": guard}


def roll_back(saver: Any, shapes: Any, step: int) -> dict[str, Any]:
  """Restores the newest checkpoint and saves it as that of the bad `step`, from where the run resumes.

  So the skipped steps do not depend on when the loop noticed the bad step, or on interruptions: a run that is
  interrupted before that save meets the same bad step again.

  Args:
    saver: `zoo.checkpoints.manager.Checkpoints`.
    shapes: of the state, with shardings.
    step: the bad one.
  """
  state, _ = saver.restore(shapes)
  shardings = jax.tree.map(lambda x: x.sharding, state)
  state = jax.jit(rolled_back, static_argnums=1, out_shardings=shardings, donate_argnums=0)(state, step)
  saver.save(step, state, wait=True)
  return state
