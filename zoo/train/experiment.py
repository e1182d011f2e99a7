"""Builds what a config describes: model, objective, data, optimizer and the pure training step."""

import contextlib
import functools
import inspect
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from zoo import kernels, optim, sharding
from zoo.build import build, check_fits, sizes_of
from zoo.config import registry
from zoo.config.loading import without
from zoo.config.schema import resolve
from zoo.data import pipeline
from zoo.data.images.augment import augment
from zoo.errors import UserError
from zoo.kernels.experts import on_mesh
from zoo.layers.kernel_products import kernel_gradients_in
from zoo.layers.positions import TooLong
from zoo.layers.returned import intercept_calls, intercept_outputs
from zoo.objectives.objective import Context, check_parts, value_and_grad
from zoo.perf import flops, memory
from zoo.perf.activation_memory import saved_activation_bytes
from zoo.sharding import activations
from zoo.train.context import (
  Frozen,
  carry_for_rows,
  carry_of,
  check_all_used,
  read_frozen,
  with_rows,
  with_zero_context,
)
from zoo.train.model_data import initial_preprocessing, records_for, with_tokenizer
from zoo.train.state import initial_state, update_rule
from zoo.train.step import collect_step, context_of, random_draw, train_step
from zoo.train.xla_options import compiler_options


class Experiment(NamedTuple):
  """Everything needed to train a config on a mesh.

  Attributes:
    model: from `zoo.build`.
    model_with_kernels: the model with the configured attention kernel, for evaluators of long sequences.
    batches: this host's part of every batch, numpy; `batches.iterate(step)` yields the batches after `step`.
    sample: n -> n rows of the training data, numpy, the same on all hosts.
    part, parts: index of this host's part of a batch, and the number of parts.
    init: key -> state, {"params", "opt_state", "step", "guard"}, "ema" if the config has an average, and "shared"
      and "rows" if the model carries collections across batches: see `zoo.objectives.objective.Context`; with
      both, "ema_shared".
    step: (state, batch, frozen={}) -> state, metrics, health: scalars for `zoo.train.guard.LossGuard`.
    collect: (state, batch, frozen={}) -> the batch to train on, sampled by the current parameters; None: the batch.
    loss: (params, batch, context) -> (loss, metrics), the function that the step differentiates.
    offers: arguments that objectives may take by name, besides those of this module.
    frozen: frozen models. If there are any, the compiled step takes `frozen.put()` as well.
    shapes: of the state, `jax.ShapeDtypeStruct`.
    placed: shardings of the state. by_row: sharding of a batch.
    model_flops: shapes of a global batch, as a step takes it -> model FLOPs of the step; see `zoo.perf.flops`.
    computed_flops: the same including the optimizer and rematerialisation.
    saved_activation_bytes: the same -> bytes on all devices that the forward pass saves for the backward pass; see
      `zoo.perf.activation_memory`.
    attention: which attention kernels run, and why not the requested one; filled when a step is traced.
  """

  model: Any
  model_with_kernels: Any
  batches: Any
  sample: Callable[[int], dict]
  part: int
  parts: int
  init: Callable[[jax.Array], dict]
  step: Callable[..., tuple[dict, dict, dict]]
  collect: Callable[..., Mapping] | None
  loss: Callable[[Any, Mapping, Context], tuple[jax.Array, dict]]
  offers: Mapping[str, Any]
  frozen: Frozen
  shapes: Any
  placed: Any
  by_row: Any
  model_flops: Callable[[Mapping], int]
  computed_flops: Callable[[Mapping], int]
  saved_activation_bytes: Callable[[Mapping], int]
  attention: kernels.Notes

  @property
  def parameters(self) -> int:
    """Number of parameters, trained or not."""
    return sum(math.prod(array.shape) for array in jax.tree.leaves(self.shapes["params"]))

  def compiled_step(self) -> Any:
    """The jitted step with its shardings; it donates the state."""
    return jax.jit(
      self.step,
      in_shardings=(self.placed, self.by_row, *self.frozen_arguments(self.frozen.placed)),
      out_shardings=(self.placed, None, None),
      donate_argnums=0,
      compiler_options=compiler_options(self.by_row.mesh),
    )

  def compiled_collect(self) -> Any:
    """The jitted `collect` with its shardings; None if batches are used unchanged."""
    if self.collect is None:
      return None
    frozen = self.frozen_arguments(self.frozen.placed)
    return jax.jit(self.collect, in_shardings=(self.placed, self.by_row, *frozen), out_shardings=self.by_row)

  def collected(self, batch: Mapping) -> Mapping:
    """Shapes of the batch that a step takes: of what `collect` makes of a batch of the data of these shapes."""
    if self.collect is None:
      return batch
    state = with_rows(self.shapes, next(iter(batch.values())).shape[0])
    return jax.eval_shape(self.collect, state, dict(batch), *self.frozen_arguments(self.frozen.shapes))

  def frozen_arguments(self, of: Any) -> tuple:
    """Arguments of `step` and `collect` after state and batch: (`of`,) with frozen models, else ()."""
    return (dict(of),) if self.frozen.models else ()


def experiment(config: Any, mesh: Mesh, offers: Mapping[str, Any] | None = None) -> Experiment:
  """Builds and validates everything that `train.py` needs; nothing is computed or written.

  Args:
    config: as read by `zoo.config`.
    mesh: the devices.
    offers: further keywords for an objective that has parameters of these names, e.g. generate.

  Raises:
    UserError: something in the config does not fit.
  """
  key = jax.random.key(config.seed)
  sharding.check_rows(config.batch_size, mesh)
  sharding.check_axes(mesh, config.sharding, config.activations)
  model, records = model_and_records(config)
  model_with_kernels, attention = kernels.with_kernels(model, config.attention, mesh)
  frozen = read_frozen(config.get("frozen", {}), config.sharding, mesh)
  by_row = sharding.batch_sharding(mesh)
  offered = {"by_row": by_row, "frozen": frozen.models, **(offers or {})}
  # Initialisation and FLOP counts use the model without kernels: for both it makes no difference.
  objective, on_devices = (
    registry.build("objectives", config.objective, one, offers=offered)
    for one in (model, kernels.with_backward(on_mesh(model_with_kernels, mesh), mesh))
  )
  part, parts = sharding.batch_part(mesh)
  batches, row, augmented = training_data(config, model, records, part, parts)
  accumulate = config.optimizer.get("accumulate", 1)
  reduce_dtype = optim.check_reduce_dtype(config.optimizer.get("reduce_dtype", "float32"), config.model.get("dtype"))
  grad, counted_grad = (value_and_grad(one, accumulate) for one in (on_devices, objective))
  check_parts(accumulate, config.batch_size)

  def init_params(rng):
    return objective.init(rng, augmented(rng, row))

  try:
    param_shapes, outputs, calls = shapes_and_calls(init_params, key)
  except TooLong as error:
    raise UserError(_too_long(error, resolve(config.data), records.info)) from error
  rules = activations.parse_rules(config.activations, mesh, attention.keys)
  activations.check(rules, len(config.activations), outputs, mesh)
  rule = update_rule(config, param_shapes, calls)

  def init(rng):
    carry = carry_for_rows(objective.carry(rng, augmented(rng, row)), config.batch_size)
    return initial_state(init_params(rng), carry, rule)

  @contextlib.contextmanager
  def tracing():
    with activations.constrained(rules, mesh), kernel_gradients_in(reduce_dtype):
      yield

  draw = random_draw(key, augmented)
  shapes = jax.eval_shape(init, key)
  counted, kept_of = (with_zero_context(one, carry_of(shapes), frozen.shapes) for one in (objective, on_devices))
  counted_loss = lambda params, batch: counted.loss(params, augmented(key, batch), key)
  for_batch = lambda batch: with_rows(shapes, next(iter(batch.values())).shape[0])
  counted_step = train_step(counted_grad, draw, rule, tracing)
  made = Experiment(
    model=model,
    model_with_kernels=model_with_kernels,
    batches=batches,
    sample=lambda rows: pipeline.batches(records, rows, seed=config.seed)[0],
    part=part,
    parts=parts,
    init=init,
    step=train_step(grad, draw, rule, tracing),
    collect=collect_step(key, objective),
    loss=lambda params, batch, context: objective.loss(params, *draw(batch, context.step), context),
    offers=dict(offers or {}),
    frozen=frozen,
    shapes=shapes,
    placed=sharding.shardings(shapes, config.sharding, mesh),
    by_row=by_row,
    model_flops=lambda batch: flops.training_flops(counted_loss, param_shapes, dict(batch)),
    computed_flops=lambda batch: flops.count(counted_step, for_batch(batch), dict(batch), frozen.shapes),
    saved_activation_bytes=lambda batch: saved_activation_bytes(kept_of, param_shapes, batch, key, accumulate),
    attention=attention,
  )
  if frozen.models:  # Errors show before anything is written.
    state = with_rows(shapes, parts)
    loss = lambda state, batch, frozen: made.loss(state["params"], batch, context_of(state, frozen))
    programs: list[tuple] = [(loss, state, dict(made.collected(row)))]
    programs += [] if made.collect is None else [(made.collect, state, row)]
    check_all_used(frozen.shapes, resolve(config.objective)["name"], *programs)
  attention.reasons.clear()  # An objective may have read shapes, for another number of rows than a step's.
  return made


def model_and_records(config: Any) -> tuple[Any, Any]:
  """The model to train, and the records that it is trained on."""
  registry.check_options(build, resolve(config.model), "model")
  model = build(**without(config.model, "preprocessing"), preprocessing=initial_preprocessing(config))
  records = records_for(model, config.data, training=True)
  check_fits(model, records.info, trained=bool(config.get("init")))
  named = with_classes(model, records.info.get("class_names"))
  return with_tokenizer(named, records.info.get("tokenizer")), records


def with_classes(model: Any, names: Any) -> Any:
  """The model with the class names of its training data in its preprocessing, if they name all of its classes."""
  if not names and "classes" not in model.preprocessing:
    return model
  carries = {name: entry for name, entry in model.preprocessing.items() if name != "classes"}
  if names and len(names) == sizes_of(model).get("num_classes"):
    carries["classes"] = list(map(str, names))
  return model.clone(preprocessing_json=json.dumps(carries))


def training_data(config: Any, model: Any, records: Any, part: int, parts: int) -> tuple[Any, dict, Callable]:
  """-> this host's batches, one row of them, and the augmentation (rng, batch) -> batch."""
  section = {"workers": 0, "augment": []} | resolve(config.data)
  registry.check_type("data.workers", section["workers"], int)
  registry.check_type("data.augment", section["augment"], list[Mapping])
  here = functools.partial(pipeline.batches, records, seed=config.seed, process_index=part, process_count=parts)
  row = here(parts)[0]  # Only shapes are needed, and a full batch may be large.
  memory.check_batch(row, config.batch_size // parts)
  batches = here(config.batch_size, workers=section["workers"])
  augmented = augment(section["augment"], model.preprocessing.get("image"))
  return batches, jax.tree.map(jnp.asarray, dict(row)), augmented


def shapes_and_calls(init: Callable, key: jax.Array) -> tuple[Any, dict[str, tuple], list[str]]:
  """Shapes of the parameters from `init` and of the outputs of modules by path, and the order of their first calls."""
  outputs: dict[str, tuple] = {}
  calls: dict[str, None] = {}

  def noted(path, array):
    outputs[path] = array.shape
    return array

  with intercept_outputs(noted), intercept_calls(calls.setdefault):
    return jax.eval_shape(init, key), outputs, list(calls)


def _too_long(error: TooLong, data: Mapping[str, Any], info: Mapping[str, Any]) -> str:
  """The config entries to change if its data have longer sequences than its model takes."""
  lengths = {name: info[name] for name in ("max_length", "target_length") if isinstance(info.get(name), int)}
  name = min(lengths, key=lambda one: abs(lengths[one] - error.length), default="max_length")
  # Rows of a language model have one token more than its input.
  fits = lengths.get(name, error.length) - (error.length - error.max_length)
  takes = name in inspect.signature(registry.lookup("data", data["name"])).parameters
  shorter = f"--config.data.{name}={fits}" if takes and fits > 0 else f"a smaller {name} in the data"
  return (
    f"The data have sequences of {error.length} tokens, model.max_length is {error.max_length}. "
    f"Set --config.model.max_length={error.length} or more, or {shorter}."
  )
