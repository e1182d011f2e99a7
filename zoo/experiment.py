"""What a config asks for, put together: model, objective, data, optimiser and one step of training, all pure."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from zoo import flops, kernels, named, optim, sharding
from zoo.build import build, check_fits
from zoo.config import without
from zoo.data import pipeline
from zoo.data.augment import augment
from zoo.objectives.objective import value_and_grad


class Experiment(NamedTuple):
  """A config on a mesh.

  Attributes:
    model: from `zoo.build`.
    batches: this host's part of every batch, numpy; `batches.iterate(step)` goes on behind a step.
    parts: how many hosts' parts make a batch.
    init: key -> state, {"params", "opt_state", "step"} and "ema" where the config has an average.
    step: (state, batch) -> state, metrics.
    shapes: those of the state, `jax.ShapeDtypeStruct`.
    placed: where each of its arrays lives. by_row: where a batch lives.
    model_flops: shapes of a global batch -> model FLOPs of a step; see `zoo.flops`.
    attention: which kernel it is computed by, and why not the one that was wanted; known when a step was traced.
  """

  model: Any
  batches: Any
  parts: int
  init: Callable[[jax.Array], dict]
  step: Callable[[dict, Mapping], tuple[dict, dict]]
  shapes: Any
  placed: Any
  by_row: Any
  model_flops: Callable[[Mapping], int]
  attention: kernels.Notes

  @property
  def parameters(self) -> int:
    """How many numbers are learnt or frozen."""
    return sum(math.prod(array.shape) for array in jax.tree.leaves(self.shapes["params"]))

  def compiled_step(self) -> Any:
    """The step, to be compiled for these places; the state that it is given is used up."""
    return jax.jit(
      self.step, in_shardings=(self.placed, self.by_row), out_shardings=(self.placed, None), donate_argnums=0
    )


def experiment(config: Any, mesh: Mesh) -> Experiment:
  """Everything that `train.py` trains with, known to fit together; nothing is computed or written.

  Raises:
    UserError: something in the config does not fit.
  """
  key = jax.random.key(config.seed)
  sharding.check_rows(config.batch_size, mesh)
  part, parts = sharding.batch_part(mesh)
  model = build(**config.model)
  # Parameters begin, and FLOPs are counted, with attention as it is written: to both the kernel makes no difference.
  objective = named.call("objectives", config.objective, model)
  attending, attention = kernels.with_kernels(model, config.get("attention", "auto"), mesh)
  trained = named.call("objectives", config.objective, attending)
  records = named.call("data", without(config.data, "augment", "workers"))
  check_fits(model, records.info)
  batches = pipeline.batches(
    records,
    config.batch_size,
    seed=config.seed,
    process_index=part,
    process_count=parts,
    workers=config.data.get("workers", 0),
  )
  augmented = augment(config.data.get("augment", ()))
  ema = optim.check_average(config.optimizer.get("ema"))
  grad = value_and_grad(trained, accumulate=config.optimizer.get("accumulate", 1))
  example = {name: jnp.asarray(array[:1]) for name, array in batches[0].items()}

  def init_params(rng):
    return objective.init(rng, augmented(rng, example))

  settings, param_shapes = without(config.optimizer, "accumulate", "ema"), jax.eval_shape(init_params, key)
  optimizer, learning_rate = optim.optimizer(param_shapes, config.steps, **settings)
  patterns = {name: settings.get(name, ()) for name in ("trainable", "freeze")}
  learns = [role.trained for role in optim.roles(param_shapes, **patterns)]

  def init(rng):
    params = init_params(rng)
    state = {"params": params, "opt_state": optimizer.init(params), "step": jnp.zeros((), jnp.int32)}
    return state if ema is None else {**state, "ema": params}

  attention.found.clear()  # An objective may have looked at shapes, of other rows than a step's.

  def step(state, batch):
    augment_rng, loss_rng = jax.random.split(jax.random.fold_in(key, state["step"]))  # A resumed run repeats itself.
    (_, metrics), grads = grad(state["params"], augmented(augment_rng, batch), loss_rng)
    updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
    new = {"params": optax.apply_updates(state["params"], updates), "opt_state": opt_state, "step": state["step"] + 1}
    if ema is not None:
      new["ema"] = optim.update_average(state["ema"], new["params"], state["step"], ema)
    # Nothing asks for the gradients of what is frozen, so XLA does not compute them.
    norm = optax.tree.norm([x for x, learned in zip(jax.tree.leaves(grads), learns, strict=True) if learned])
    return new, {**metrics, "learning_rate": learning_rate(state["step"]), "grad_norm": norm}

  def model_flops(batch):
    loss = lambda params, batch: objective.loss(params, augmented(key, batch), key)
    return flops.training_flops(loss, param_shapes, dict(batch))

  shapes = jax.eval_shape(init, key)
  placed = sharding.shardings(shapes, config.sharding, mesh)
  by_row = sharding.batch_sharding(mesh)
  return Experiment(model, batches, parts, init, step, shapes, placed, by_row, model_flops, attention)
