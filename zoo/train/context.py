"""The context of a train step: frozen models, and collections carried across batches."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from zoo import saving
from zoo.config.schema import resolve
from zoo.errors import UserError, shown
from zoo.objectives.objective import ROWS, SHARED, Batch, Carry, Context, Objective
from zoo.sharding import shardings
from zoo.sharding.rules import rules_and_rest
from zoo.tree import path_name, row_axis

# A source with options of `zoo.load`.
ENTRIES = ("source", "head", "dtype", "step", "best", "ignore")


class Frozen(NamedTuple):
  """Frozen models by name: a teacher, a reference.

  Attributes:
    models: from `zoo.load`.
    params: their parameters, in host memory.
    placed: the shardings of their arrays during training.
  """

  models: Mapping[str, Any]
  params: Mapping[str, Any]
  placed: Mapping[str, Any]

  @property
  def shapes(self) -> dict[str, Any]:
    """`jax.ShapeDtypeStruct` of every array, with its sharding."""
    shape = lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
    return jax.tree.map(shape, dict(self.params), dict(self.placed))

  def put(self) -> dict[str, Any]:
    """Puts the parameters on the devices."""
    return jax.device_put(dict(self.params), dict(self.placed))


def read_frozen(section: Mapping[str, Any], strategy: Any, mesh: Mesh) -> Frozen:
  """Loads the models of a config's `frozen`: {name: source of `zoo.load`, or {"source": ..., **its options}}.

  Args:
    strategy: a config's `sharding`, of which only the named strategy is used: its rules are for the trained model.
    mesh: the devices.

  Raises:
    UserError: an invalid entry, or an error of `zoo.load`.
  """
  models, params, placed = {}, {}, {}
  _, by_name = rules_and_rest(strategy)
  for name, entry in resolve(section).items():
    options = {"source": entry} if isinstance(entry, str) else dict(entry) if isinstance(entry, Mapping) else {}
    unknown = [option for option in options if option not in ENTRIES]
    if not isinstance(options.get("source"), str) or unknown:
      raise UserError(
        f"frozen.{name} is {shown(entry)}. It must be a folder or a hub id (str), or a mapping with a 'source' and "
        "optionally "
        f"{', '.join(ENTRIES[1:])}."
      )
    try:
      models[name], loaded = saving.load(options.pop("source"), **options)
      placed[name] = shardings(loaded, by_name, mesh)
    except UserError as error:
      raise UserError(f"frozen.{name}: {error}") from None
    params[name] = jax.tree.map(np.asarray, loaded)
  return Frozen(models, params, placed)


def check_all_used(frozen: Mapping[str, Any], objective: str, *programs: tuple[Callable, Any, Any]) -> None:
  """Refuses frozen models that an objective would silently not use.

  Args:
    frozen: shapes of their parameters, by name.
    objective: its name, for the message.
    programs: what a step runs, (function of state, batch and frozen; shapes of the state; of the batch). They are
      traced.

  Raises:
    UserError: no program reads an array of one of them.
  """
  read: set[str] = set()
  names = [path[0].key for path, _ in jax.tree_util.tree_leaves_with_path(dict(frozen))]
  for function, state, batch in programs:
    jaxpr = jax.make_jaxpr(function)(state, batch, dict(frozen)).jaxpr
    inputs = {id(x) for equation in jaxpr.eqns for x in equation.invars} | {id(x) for x in jaxpr.outvars}
    read |= {name for name, x in zip(names, jaxpr.invars[-len(names) :], strict=True) if id(x) in inputs}
  for name in sorted(frozen.keys() - read):
    raise UserError(
      f"frozen.{name} is not used by the objective {objective}. Remove it, or choose an objective that uses it, as "
      "distill uses frozen.teacher."
    )


def carry_for_rows(carry: Carry, rows: int) -> dict[str, Any]:
  """The initial carry of so many `rows`, repeated from that of one row."""

  def repeated(path: tuple, x: jax.Array) -> jax.Array:
    axis = row_axis(path_name(path))
    first = jax.lax.slice_in_dim(x, 0, 1, axis=axis)
    return jnp.broadcast_to(first, (*x.shape[:axis], rows, *x.shape[axis + 1 :]))

  many = jax.tree_util.tree_map_with_path(repeated, carry.get(ROWS, {}))
  return {kind: x for kind, x in ((SHARED, carry.get(SHARED, {})), (ROWS, many)) if x}


def with_rows(shapes: Mapping[str, Any], rows: int) -> dict[str, Any]:
  """The shapes of a train state for batches of so many `rows`."""
  return {**shapes, **jax.eval_shape(lambda carry: carry_for_rows(carry, rows), carry_of(shapes))}


def with_zero_context(objective: Objective, carry: Carry, frozen: Any) -> Objective:
  """`objective` with a context of zeros, to count the operations of its program without running it.

  Args:
    carry, frozen: shapes; one row is enough.
  """
  if not carry and not frozen:
    return objective
  zeros = lambda tree: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)

  def context(batch: Batch | None) -> Context:
    rows = 1 if batch is None else len(next(iter(batch.values())))
    return Context(jnp.zeros((), jnp.int32), zeros(frozen), carry_for_rows(zeros(carry), rows))

  def forward(params: Any, batch: Batch, rng: jax.Array | None = None, _: Context | None = None) -> dict:
    return objective.forward(params, batch, rng, context(batch))

  penalty = objective.penalty
  if penalty is None:
    return objective._replace(forward=forward)
  return objective._replace(forward=forward, penalty=lambda params, _: penalty(params, context(None)))


def carry_of(state: Mapping[str, Any]) -> dict[str, Any]:
  """The carry of a train state, as in `Context`: its entries "shared" and "rows"."""
  return {kind: state[kind] for kind in (SHARED, ROWS) if kind in state}


def weights_of_state(state: Mapping[str, Any]) -> Any:
  """The weights of a train state for `zoo.save` and evaluators: averages if there are any.

  Parameters; or {"params": ..., collection: ...} for a model with shared collections.
  """
  params = state.get("ema", state["params"])
  shared = state.get("ema_shared", state.get(SHARED, {}))
  return {"params": params, **shared} if shared else params
