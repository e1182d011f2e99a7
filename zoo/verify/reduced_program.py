"""Loss, gradients and updates of a reduced config, as functions of arrays, on a mesh or on one device."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zoo import kernels, optim, sharding
from zoo.build import build
from zoo.config import registry
from zoo.config.loading import without
from zoo.data.images.augment import augment
from zoo.errors import UserError
from zoo.kernels.experts import on_mesh
from zoo.layers.returned import intercept_outputs
from zoo.objectives.objective import Context, value_and_grad
from zoo.sharding import activations
from zoo.train.context import carry_for_rows
from zoo.train.experiment import Experiment
from zoo.tree import path_names
from zoo.verify.reduced_config import Reduced, cut, is_cheap, reductions, rows_of, same_placements


class Program(NamedTuple):
  """A loss and its gradients.

  Attributes:
    run: (params, batch, frozen) -> (loss, carry, gradients).
    forward: (params, batch, frozen) -> loss.
    shapes: of the parameters.
    placed: their shardings. by_row: sharding of a batch.
    frozen: parameters of frozen models. frozen_placed: their shardings.
    carried: paths of the carry.
    modules: paths of the model's modules in the order of their first calls.
  """

  run: Callable
  forward: Callable
  shapes: Any
  placed: Any
  by_row: Any
  frozen: Any
  frozen_placed: Any
  carried: list[str]
  modules: list[str]

  @property
  def inputs_placed(self) -> tuple[Any, Any, Any]:
    """Shardings of the arguments of `run`."""
    return self.placed, self.by_row, self.frozen_placed


class Update(NamedTuple):
  """An optimiser's update as a function.

  Attributes:
    begin: parameters -> initial optimiser state.
    run: (gradients, state, parameters) -> (updates, state).
    placed: shardings of its state.
  """

  begin: Callable
  run: Callable
  placed: Any


# Settings of an optimiser per parameter name or per step that act elementwise: names
# may be missing with the removed layers.
BY_NAME = ("decay", "multipliers", "layer_decay", "trainable", "freeze", "groups", "schedule", "warmup_steps", "end")
# Options that depend on a parameter's size: reduced ones are treated like the full ones.
OF_SIZE = {"adafactor": {"min_dim_size_to_factor": 1}}


def update(config: Any, program: Program, mesh: Mesh, alone: bool = False) -> Update:
  """The config's optimiser for a program's parameters, all trained, with learning rate 1.

  Args:
    alone: a mesh of one device, as in `program`.

  Raises:
    UserError: options that the optimiser refuses.
  """
  options = without(config.optimizer, "accumulate", "ema", "reduce_dtype", *BY_NAME)
  options |= {"learning_rate": 1.0, "schedule": "constant", **OF_SIZE.get(options.get("name", ""), {})}
  optimizer, _ = optim.optimizer(program.shapes, config.steps, **options)
  shapes = jax.eval_shape(optimizer.init, program.shapes)
  if alone:
    placed = jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), shapes)
  else:
    placed = sharding.shardings({"params": program.shapes, "opt_state": shapes}, config.sharding, mesh)["opt_state"]
  return Update(optimizer.init, optimizer.update, placed)


def program(
  config: Any, experiment: Experiment, reduced: Reduced, batch: Mapping[str, Any], mesh: Mesh, alone: bool = False
) -> Program:
  """The reduced config's loss and gradients on a mesh, as in `zoo.train.experiment.experiment`.

  Args:
    experiment: of the full config.
    batch: an example, arrays or shapes.
    alone: a mesh of one device, without rules.

  Raises:
    UserError: sizes that the family refuses, or rules that match nothing any more.
  """
  model = build(**reduced.model)
  attention = "dense" if alone and config.attention == "ring" else config.attention
  model_with_kernels, notes = kernels.with_kernels(model, attention, mesh)
  by_row = sharding.batch_sharding(mesh)
  options = _chunked(config, reduced, batch)
  offers = {"by_row": by_row, "frozen": experiment.frozen.models, **experiment.offers}
  objective = registry.build("objectives", options, on_mesh(model_with_kernels, mesh), offers=offers)
  augmented = augment(config.data.get("augment", ()), experiment.model.preprocessing.get("image"))
  rules = [] if alone else activations.parse_rules(config.activations, mesh, notes.keys)
  grad, modules = value_and_grad(objective, reduced.accumulate), dict[str, tuple]()

  def init(rng, batch):
    return objective.init(rng, augmented(rng, batch))

  def noted(path, array):
    modules[path] = array.shape
    return array

  with intercept_outputs(noted):
    shapes = jax.eval_shape(init, jax.random.key(0), batch)
  frozen = dict(experiment.frozen.params)
  if alone:
    placed, frozen_placed = jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), (shapes, frozen))
  else:
    activations.check(rules, len(config.activations), modules, mesh)
    placed = sharding.shardings({"params": shapes}, config.sharding, mesh)["params"]
    frozen_placed = dict(experiment.frozen.placed)

  def drawn(batch):
    augment_rng, loss_rng = jax.random.split(jax.random.key(config.seed))
    return augmented(augment_rng, batch), loss_rng

  def context(batch, frozen):
    first = jax.tree.map(lambda x: x[:1], dict(batch))
    carry = objective.carry(jax.random.key(0), augmented(jax.random.key(0), first))
    return Context(jnp.zeros((), jnp.int32), frozen, carry_for_rows(carry, len(next(iter(batch.values())))))

  def run(params, batch, frozen):
    with activations.constrained(rules, mesh):
      (loss, (_, carry)), grads = grad(params, *drawn(batch), context(batch, frozen))
    # Bools that are carried have no differences.
    return loss, jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == bool else x, carry), grads

  def forward(params, batch, frozen):
    with activations.constrained(rules, mesh):
      return objective.loss(params, *drawn(batch), context(batch, frozen))[0]

  carried = path_names(jax.eval_shape(lambda batch: context(batch, {}).carry, batch))
  return Program(run, forward, shapes, placed, by_row, frozen, frozen_placed, carried, list(modules))


def _chunked(config: Any, reduced: Reduced, batch: Mapping[str, Any]) -> dict[str, Any]:
  """The section of the objective with its chunk reduced in proportion to the batch."""
  options = config.objective.to_dict()
  if options.get("chunk"):
    shorter = max((after / before for before, after in reduced.lengths.items()), default=1)
    rows = reduced.rows / config.batch_size
    by_text = "image" in batch and "tokens" in batch  # Pairs are chunked by rows, sequences by tokens.
    options["chunk"] = max(1, math.ceil(options["chunk"] * rows * (1 if by_text else shorter)))
  return options


def reduce(config: Any, experiment: Experiment, mesh: Mesh) -> tuple[Reduced, Program, dict[str, np.ndarray]]:
  """-> the best reduction with the config's placements, its program on the mesh, a random batch [rows, ...] for it.

  Raises:
    UserError: no reduction has the same placements, or the reduced config cannot be built.
  """
  shapes = experiment.shapes["params"]
  batch = experiment.sample(rows_of(config.batch_size, config.optimizer.get("accumulate", 1), mesh)[0])
  refused, platform = (
    UserError("no reduced config has the same placements as the config"),
    mesh.devices.flat[0].platform,
  )
  for reduced in reductions(config, shapes, batch, mesh):
    try:
      smaller = cut(batch, reduced, np.random.default_rng(config.seed % 2**32))
      split = program(config, experiment, reduced, smaller, mesh)
    except (UserError, ValueError, TypeError) as error:
      refused = UserError(str(error))
      continue
    if reduced.if_cheap and not is_cheap(split.shapes, smaller, reduced.rows, platform):
      continue
    if same_placements(split.shapes, shapes, config.sharding, mesh):
      rows = experiment.sample(reduced.rows) if reduced.rows > len(next(iter(batch.values()))) else batch
      rows = cut(rows, reduced, np.random.default_rng(config.seed % 2**32))
      return reduced, split, _collected(config, experiment, reduced, rows)
  raise refused


def _collected(config: Any, experiment: Experiment, reduced: Reduced, batch: dict[str, np.ndarray]) -> dict:
  """The batch that the reduced model, as initialised, collects to train on, on one device: the same for all."""
  if experiment.collect is None:
    return batch
  offers = {"by_row": experiment.by_row, "frozen": experiment.frozen.models, **experiment.offers}
  objective = registry.build("objectives", _chunked(config, reduced, batch), build(**reduced.model), offers=offers)
  key = jax.random.key(config.seed)
  context = Context(jnp.zeros((), jnp.int32), dict(experiment.frozen.params), objective.carry(key, batch))
  return jax.device_get(dict(objective.collect(jax.jit(objective.init)(key, batch), batch, key, context)))
