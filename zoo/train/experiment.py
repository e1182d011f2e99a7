"""What a config asks for, put together: model, objective, data, optimiser and one step of training, all pure."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from zoo import kernels, optim, sharding
from zoo.build import build, check_fits
from zoo.config import registry
from zoo.config.loading import without
from zoo.config.schema import resolve
from zoo.data import pipeline
from zoo.data.images.augment import augment
from zoo.errors import UserError
from zoo.kernels.experts import on_mesh
from zoo.layers.kernel_products import kernel_gradients_in
from zoo.layers.positions import TooLong
from zoo.layers.returned import on_returned
from zoo.objectives.objective import Context, check_parts, value_and_grad
from zoo.perf import flops, memory
from zoo.perf.activation_memory import kept
from zoo.sharding import activations
from zoo.train import guard
from zoo.train.context import Frozen, blank, carry_of, for_rows, read_frozen
from zoo.train.model_data import records_for, to_train, with_tokenizer
from zoo.train.xla_options import compiler_options


class Experiment(NamedTuple):
  """A config on a mesh.

  Attributes:
    model: from `zoo.build`.
    attending: the same with its kernel of attention, for evaluators: of long texts they could not hold the weights.
    batches: this host's part of every batch, numpy; `batches.iterate(step)` goes on behind a step.
    sample: rows -> as many rows of the training data as one host would read, numpy, the same on all hosts.
    part, parts: which of how many parts of a batch this host reads.
    init: key -> state, {"params", "opt_state", "step", "guard"}, "ema" where the config has an average, and "shared"
      and "rows" where the model carries something from batch to batch: see `zoo.objectives.objective.Context`.
    step: (state, batch, frozen={}) -> state, metrics, guarded: numbers for `zoo.train.guard.Watch`.
    collect: (state, batch, frozen={}) -> the batch to learn from, by the parameters as they are; None: that batch.
    loss: (params, batch, context) -> what that step differentiates: (loss, metrics).
    offers: what objectives may ask for by name, besides what this module knows.
    frozen: models that do not learn. Where there are any, the compiled step takes `frozen.put()` as well.
    shapes: those of the state, `jax.ShapeDtypeStruct`.
    placed: where each of its arrays lives. by_row: where a batch lives.
    model_flops: shapes of a global batch -> model FLOPs of a step; see `zoo.perf.flops`.
    computed_flops: the same with the optimiser's, and with what rematerialisation computes again.
    kept: likewise -> bytes of all devices that wait for the backward pass; see `zoo.perf.activation_memory`.
    attention: which kernel it is computed by, and why not the one that was wanted; known when a step was traced.
  """

  model: Any
  attending: Any
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
  kept: Callable[[Mapping], int]
  attention: kernels.Notes

  @property
  def parameters(self) -> int:
    """How many numbers are learnt or frozen."""
    return sum(math.prod(array.shape) for array in jax.tree.leaves(self.shapes["params"]))

  def compiled_step(self) -> Any:
    """The step, to be compiled for these places; the state that it is given is used up."""
    return jax.jit(
      self.step,
      in_shardings=(self.placed, self.by_row, *self.frozen_arguments(self.frozen.placed)),
      out_shardings=(self.placed, None, None),
      donate_argnums=0,
      compiler_options=compiler_options(self.by_row.mesh),
    )

  def compiled_collect(self) -> Any:
    """`collect`, to be compiled likewise; None where batches are learnt from as they are."""
    if self.collect is None:
      return None
    frozen = self.frozen_arguments(self.frozen.placed)
    return jax.jit(self.collect, in_shardings=(self.placed, self.by_row, *frozen), out_shardings=self.by_row)

  def frozen_arguments(self, of: Any) -> tuple:
    """What `step` and `collect` take behind state and batch: `of` the frozen models, nothing if there are none."""
    return (dict(of),) if self.frozen.models else ()


def experiment(config: Any, mesh: Mesh, offers: Mapping[str, Any] | None = None) -> Experiment:
  """Everything that `train.py` trains with, known to fit together; nothing is computed or written.

  Args:
    config: as `zoo.config` reads it.
    mesh: where.
    offers: further keywords for an objective that has parameters of these names, e.g. generate.

  Raises:
    UserError: something in the config does not fit.
  """
  key = jax.random.key(config.seed)
  sharding.check_rows(config.batch_size, mesh)
  part, parts = sharding.batch_part(mesh)
  registry.check_options(build, resolve(config.model), "model")
  model = build(**without(config.model, "preprocessing"), preprocessing=to_train(config))
  records = records_for(model, config.data, training=True)
  check_fits(model, records.info)
  model = with_tokenizer(model, records.info.get("tokenizer"))
  attending, attention = kernels.with_kernels(model, config.attention, mesh)
  frozen = read_frozen(config.get("frozen", {}), config.sharding, mesh)
  by_row = sharding.batch_sharding(mesh)
  known = {"by_row": by_row, "frozen": frozen.models, **(offers or {})}
  # Parameters begin, and FLOPs are counted, with parts as they are written: to both it makes no difference.
  objective, on_devices = (
    registry.call("objectives", config.objective, one, offers=known) for one in (model, on_mesh(attending, mesh))
  )
  training = {"workers": 0, "augment": []} | resolve(config.data)
  registry.check_type("data.workers", training["workers"], int)
  registry.check_type("data.augment", training["augment"], list[Mapping])
  here = functools.partial(pipeline.batches, records, seed=config.seed, process_index=part, process_count=parts)
  row = here(parts)[0]  # Shapes are all that is asked of it, and a whole batch may be large.
  memory.check_batch(row, config.batch_size // parts)
  batches = here(config.batch_size, workers=training["workers"])
  augmented = augment(training["augment"], model.preprocessing.get("image"))
  ema = optim.check_average(config.optimizer.get("ema"))
  spike, skips = guard.check_spike(config.bad_loss.spike), config.bad_loss.action == "skip"
  accumulate = config.optimizer.get("accumulate", 1)
  reduce_dtype = optim.check_reduce_dtype(config.optimizer.get("reduce_dtype", "float32"), config.model.get("dtype"))
  grad, counted_grad = (value_and_grad(one, accumulate) for one in (on_devices, objective))
  check_parts(accumulate, config.batch_size)
  example = jax.tree.map(jnp.asarray, dict(row))

  def init_params(rng):
    return objective.init(rng, augmented(rng, example))

  rules, parts_of_model = activations.read(config.activations, mesh, attention.keys), {}

  def noted(path, array):
    parts_of_model[path] = array.shape
    return array

  def init_carry(rng):
    return for_rows(objective.carry(rng, augmented(rng, example)), config.batch_size)

  try:
    with on_returned(noted):
      param_shapes = jax.eval_shape(init_params, key)
  except TooLong as error:
    raise UserError(_too_long(error, resolve(config.data), records.info)) from error
  activations.check(rules, len(config.activations), parts_of_model, mesh)
  settings = without(config.optimizer, "accumulate", "ema", "reduce_dtype")
  registry.check_options(optim.optimizer, settings, "optimizer", given=("params", "steps"))
  optimizer, learning_rate = optim.optimizer(param_shapes, config.steps, **settings)
  jax.eval_shape(learning_rate, jnp.zeros((), jnp.int32))  # Numbers that no step can count to are refused here.
  patterns = {name: settings.get(name, ()) for name in ("trainable", "freeze")}
  learns = [role.trained for role in optim.roles(param_shapes, **patterns)]

  def init(rng):
    params = init_params(rng)
    state = {"params": params, "opt_state": optimizer.init(params)}
    state |= {"step": jnp.zeros((), jnp.int32), "guard": guard.init()}
    state |= init_carry(rng)
    return state if ema is None else {**state, "ema": params}

  def drawn(batch, step):
    augment_rng, loss_rng = jax.random.split(jax.random.fold_in(key, step))  # A resumed run repeats itself.
    return augmented(augment_rng, batch), loss_rng

  attention.found.clear()  # An objective may have looked at shapes, of other rows than a step's.

  def context_of(state, frozen):
    return Context(state["step"], frozen, carry_of(state))

  def step(state, batch, frozen={}, grad=grad):  # noqa: B006
    with activations.constrained(rules, mesh), kernel_gradients_in(reduce_dtype):
      (loss, (metrics, carry)), grads = grad(state["params"], *drawn(batch, state["step"]), context_of(state, frozen))
    updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
    new = {"params": optax.apply_updates(state["params"], updates), "opt_state": opt_state}
    new |= carry
    if ema is not None:
      new["ema"] = optim.update_average(state["ema"], new["params"], state["step"], ema)
    # Nothing asks for the gradients of what is frozen, so XLA does not compute them.
    norm = optax.tree.norm([x for x, learned in zip(jax.tree.leaves(grads), learns, strict=True) if learned])
    bad = guard.is_bad(state["guard"], loss, norm, spike)
    if skips:
      new = guard.select(bad, {name: state[name] for name in new}, new)
    seen = guard.updated(state["guard"], loss, bad, skips)
    # A step that was skipped has not moved the optimiser's own count.
    metrics |= {"learning_rate": learning_rate(state["step"] - state["guard"]["skipped"]), "grad_norm": norm}
    metrics |= {"skipped": seen["skipped"]} if skips else {}
    guarded = {"bad": bad, "loss": loss, "grad_norm": norm, "mean": seen["mean"], "in_a_row": seen["in_a_row"]}
    return {**new, "step": state["step"] + 1, "guard": seen}, metrics, guarded

  def collect(state, batch, frozen={}):  # noqa: B006
    rng = jax.random.fold_in(jax.random.fold_in(key, state["step"]), 1)
    return objective.collect(state["params"], batch, rng, context_of(state, frozen))

  def model_flops(batch):
    loss = lambda params, batch: counted.loss(params, augmented(key, batch), key)
    return flops.training_flops(loss, param_shapes, dict(batch))

  def computed_flops(batch):
    return flops.count(lambda *args: step(*args, grad=counted_grad), shapes, dict(batch), frozen.shapes)

  def kept_bytes(batch):
    return kept(blank(on_devices, carry_of(shapes), frozen.shapes), param_shapes, batch, key, accumulate)

  shapes = jax.eval_shape(init, key)
  counted = blank(objective, carry_of(shapes), frozen.shapes)
  placed = sharding.shardings(shapes, config.sharding, mesh)
  loss = lambda params, batch, context: objective.loss(params, *drawn(batch, context.step), context)
  return Experiment(
    model,
    attending,
    batches,
    lambda rows: pipeline.batches(records, rows, seed=config.seed)[0],
    part,
    parts,
    init,
    step,
    None if objective.collect is None else collect,
    loss,
    dict(offers or {}),
    frozen,
    shapes,
    placed,
    by_row,
    model_flops,
    computed_flops,
    kept_bytes,
    attention,
  )


def _too_long(error: TooLong, data: Mapping[str, Any], info: Mapping[str, Any]) -> str:
  """Which entries of a config to set where its data have longer texts than its model takes."""
  lengths = {name: info[name] for name in ("max_length", "target_length") if isinstance(info.get(name), int)}
  name = min(lengths, key=lambda one: abs(lengths[one] - error.length), default="max_length")
  # Rows of a language model have a token more than it reads.
  fits = lengths.get(name, error.length) - (error.length - error.max_length)
  takes = name in inspect.signature(registry.named("data", data["name"])).parameters
  shorter = f"--config.data.{name}={fits}" if takes and fits > 0 else f"a smaller {name} in the data"
  return (
    f"The data have texts of {error.length} tokens, model.max_length is {error.max_length}. "
    f"Set --config.model.max_length={error.length} or more, or {shorter}."
  )
