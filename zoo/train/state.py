"""The train state and its update rule, from the config's sections `optimizer` and `bad_loss`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from zoo import optim
from zoo.config import registry
from zoo.config.loading import without
from zoo.objectives.objective import SHARED
from zoo.optim.build import SUPPLIED
from zoo.train import guard

STEP_OPTIONS = ("accumulate", "ema", "reduce_dtype")  # Entries of the section `optimizer` that concern the step.


class UpdateRule(NamedTuple):
  """The update rule of a step.

  Attributes:
    optimizer: gradients -> updates.
    learning_rate: count of updates -> learning rate.
    trained: whether each parameter is trained, in the order of the tree's leaves.
    ema: decay of the average of parameters; None: there is none.
    spike: a loss above this times its running mean is bad; None: no limit.
    skips: whether a bad step leaves the state unchanged.
  """

  optimizer: optax.GradientTransformation
  learning_rate: Callable[[Any], Any]
  trained: list[bool]
  ema: float | None
  spike: float | None
  skips: bool


def update_rule(config: Any, params: Any, calls: Sequence[str] = ()) -> UpdateRule:
  """Builds the update rule of a config for parameters of these shapes. UserError if they do not fit.

  calls: paths of the model's modules in the order of their first calls, for `optimizer.layer_decay`.
  """
  settings = without(config.optimizer, *STEP_OPTIONS)
  registry.check_options(optim.optimizer, settings, "optimizer", supplied=SUPPLIED)
  optimizer, learning_rate = optim.optimizer(params, config.steps, calls=calls, **settings)
  jax.eval_shape(learning_rate, jnp.zeros((), jnp.int32))  # Step counts beyond int32 are refused here.
  patterns = {name: settings.get(name, ()) for name in ("trainable", "freeze")}
  return UpdateRule(
    optimizer=optimizer,
    learning_rate=learning_rate,
    trained=[role.trained for role in optim.roles(params, **patterns)],
    ema=optim.check_average(config.optimizer.get("ema")),
    spike=guard.check_spike(config.bad_loss.spike),
    skips=config.bad_loss.action == "skip",
  )


def initial_state(params: Any, carry: Mapping[str, Any], rule: UpdateRule) -> dict[str, Any]:
  """The state of step 0.

  Args:
    params: of the model.
    carry: collections carried across batches: "shared" and "rows", each only if not empty.
    rule: its update rule.
  """
  state = {"params": params, "opt_state": rule.optimizer.init(params)}
  state |= {"step": jnp.zeros((), jnp.int32), "guard": guard.init()}
  state |= carry
  return state if rule.ema is None else {**state, "ema": params} | averages(carry)


def averages(carry: Mapping[str, Any]) -> dict[str, Any]:
  """Averages of the shared carry, like those of parameters: {"ema_shared": ...}, or {}.

  Shared statistics belong to the parameters of their time: averaged parameters need averaged statistics.
  """
  return {"ema_shared": carry[SHARED]} if SHARED in carry else {}
