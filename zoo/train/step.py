"""The training step as a pure function: train state, batch -> train state, metrics."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from zoo import optim
from zoo.objectives.objective import Context, Objective
from zoo.train import guard
from zoo.train.context import carry_of
from zoo.train.state import UpdateRule, averages

# (batch, step) -> the augmented and prepared batch, and the key of the loss.
Draw = Callable[[Mapping[str, Any], Any], tuple[Mapping[str, Any], jax.Array]]


def random_draw(key: jax.Array, augment: Callable[[jax.Array, Mapping], Mapping]) -> Draw:
  """The random draws of a step, from the run's key and the step alone: a resumed run repeats itself.

  Args:
    key: of the run.
    augment: (key, batch) -> batch, as of `zoo.data.images.augment`.
  """

  def draw(batch, step):
    augment_rng, loss_rng = jax.random.split(jax.random.fold_in(key, step))
    return augment(augment_rng, batch), loss_rng

  return draw


def context_of(state: Mapping[str, Any], frozen: Mapping[str, Any]) -> Context:
  """The `Context` of a step."""
  return Context(state["step"], frozen, carry_of(state))


def train_step(
  grad: Callable[..., tuple],
  draw: Draw,
  rule: UpdateRule,
  tracing: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> Callable[..., tuple[dict, dict, dict]]:
  """Builds the step: (state, batch, frozen={}) -> state, metrics, and scalars for `zoo.train.guard.LossGuard`.

  Args:
    grad: gradient of an objective, from `zoo.objectives.objective.value_and_grad`.
    draw: from `random_draw`.
    rule: the update rule.
    tracing: context in which the model is traced, such as constraints on its activations.
  """

  def step(state, batch, frozen={}):  # noqa: B006
    with tracing():
      (loss, (metrics, carry)), grads = grad(state["params"], *draw(batch, state["step"]), context_of(state, frozen))
    updates, opt_state = rule.optimizer.update(grads, state["opt_state"], state["params"])
    new = {"params": optax.apply_updates(state["params"], updates), "opt_state": opt_state, **carry}
    if rule.ema is not None:
      for name, values in {"ema": new["params"], **averages(carry)}.items():
        new[name] = optim.update_average(state[name], values, state["step"], rule.ema)
    # Gradients of frozen parameters are unused, so XLA does not compute them.
    trained = [x for x, learns in zip(jax.tree.leaves(grads), rule.trained, strict=True) if learns]
    norm = optax.tree.norm(trained)
    bad = guard.is_bad(state["guard"], loss, norm, rule.spike)
    if rule.skips:
      new = guard.select(bad, {name: state[name] for name in new}, new)
    counts = guard.updated(state["guard"], loss, bad, rule.skips)
    # A skipped step has not increased the optimiser's own count.
    metrics |= {"learning_rate": rule.learning_rate(state["step"] - state["guard"]["skipped"]), "grad_norm": norm}
    metrics |= {"skipped": counts["skipped"]} if rule.skips else {}
    health = {"bad": bad, "loss": loss, "grad_norm": norm, "mean": counts["mean"], "in_a_row": counts["in_a_row"]}
    return {**new, "step": state["step"] + 1, "guard": counts}, metrics, health

  return step


def collect_step(key: jax.Array, objective: Objective) -> Callable[..., Mapping] | None:
  """Builds `collect`: (state, batch, frozen={}) -> the batch to train on; None if there is none."""
  rollout = objective.collect
  if rollout is None:
    return None

  def collect(state, batch, frozen={}):  # noqa: B006
    rng = jax.random.fold_in(jax.random.fold_in(key, state["step"]), 1)
    return rollout(state["params"], batch, rng, context_of(state, frozen))

  return collect
