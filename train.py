"""Train any model of the zoo: python train.py --config=configs/clip_emoji.py --config.steps=500

The config names a model, an objective, data, an optimiser and a sharding; this file puts them together and names none.
The same command goes on where an interrupted run stopped. `--help` lists what can be set.
"""

import contextlib
import functools
import math
import pathlib
import sys

import jax
import jax.numpy as jnp
import optax

import zoo
from zoo import evaluate, flops, hosts, named, optim, saving, sharding
from zoo.build import check_fits
from zoo.checkpoints import Checkpoints
from zoo.config import check_same_run, load, save, without
from zoo.data import pipeline
from zoo.data.augment import augment
from zoo.errors import UserError, exits_with_one_line, setting_up
from zoo.explain import explain
from zoo.metrics import Writers
from zoo.objectives.objective import value_and_grad
from zoo.progress import Progress, Speed, amounts
from zoo.schema import resolve

PREEMPTED = 143  # 128 + SIGTERM: not zero, so that a scheduler starts the job again.


@exits_with_one_line
def main(argv: list[str]) -> int:
  """Trains what the arguments say; returns the exit status."""
  config, options = load(
    argv, switches={"explain-sharding": "shows where every parameter would live, and trains nothing"}
  )
  hosts.join()
  folder = pathlib.Path(config.workdir)
  check_same_run(config, folder)

  # What to train, on what, toward what. Nothing is written before all of it is known to fit together.
  with setting_up():
    key = jax.random.key(config.seed)
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_rows(config.batch_size, mesh)
    part, parts = sharding.batch_part(mesh)
    model = zoo.build(**config.model)
    objective = named.call("objectives", config.objective, model)
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
    evaluators = evaluate.evaluators(config.eval, model)
    ema = optim.check_average(config.optimizer.get("ema"))
    grad = value_and_grad(objective, accumulate=config.optimizer.get("accumulate", 1))

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

    def train_step(state, batch):
      augment_rng, loss_rng = jax.random.split(jax.random.fold_in(key, state["step"]))  # A resumed run repeats itself.
      (_, metrics), grads = grad(state["params"], augmented(augment_rng, batch), loss_rng)
      updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
      new = {"params": optax.apply_updates(state["params"], updates), "opt_state": opt_state, "step": state["step"] + 1}
      if ema is not None:
        new["ema"] = optim.update_average(state["ema"], new["params"], state["step"], ema)
      # Nothing asks for the gradients of what is frozen, so XLA does not compute them.
      norm = optax.tree.norm([x for x, learned in zip(jax.tree.leaves(grads), learns, strict=True) if learned])
      return new, {**metrics, "learning_rate": learning_rate(state["step"]), "grad_norm": norm}

    # Every array is born where it will live.
    shapes = jax.eval_shape(init, key)
    placed = sharding.shardings(shapes, config.sharding, mesh)
    if options["explain-sharding"]:
      print(explain(shapes, config.sharding, mesh))
      return 0
    by_row = sharding.batch_sharding(mesh)
    run_step = jax.jit(train_step, in_shardings=(placed, by_row), out_shardings=(placed, None), donate_argnums=0)
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, placed)
    saver = Checkpoints(folder / "checkpoints", **without(config.checkpoint, "every"))
    restored = saver.restore(abstract)
    state, start = restored or (jax.jit(init, out_shardings=placed)(key), 0)
    if start > config.steps:
      raise UserError(f"{folder} has reached step {start}, steps is {config.steps}. Raise --config.steps to go on.")
    notes: list[str] = []
    if config.init and restored is None:
      state = saving.load_into(resolve(config.init), state, model, note=notes.append)
    if jax.process_index() == 0:
      save(config, folder)
    writers = Writers(folder, step=start, tensorboard=config.log.tensorboard, wandb=config.log.wandb)

  preemption = hosts.Preemption()
  progress = Progress(config.steps, step=start)
  count = sum(math.prod(array.shape) for array in jax.tree.leaves(shapes["params"]))
  for note in notes:
    progress.note(note)
  progress.note(f"{count:,} parameters on {mesh.size} {mesh.devices.flat[0].platform} device(s), run folder {folder}")
  speed = Speed(start, peak=flops.peak_of(mesh.devices.flat))

  @functools.cache  # Batches of texts have a few shapes, each a program of its own.
  def work(*batch):
    loss = lambda params, batch: objective.loss(params, augmented(key, batch), key)
    return flops.training_flops(loss, shapes["params"], dict(batch)) if speed.peak else 0

  with contextlib.closing(saver), contextlib.closing(writers), contextlib.closing(progress):
    for step, batch in zip(range(start + 1, config.steps + 1), batches.iterate(start), strict=False):
      arrays = sharding.put_batch(batch, mesh)
      state, metrics = run_step(state, arrays)
      shapes_of_batch = ((name, jax.ShapeDtypeStruct(array.shape, array.dtype)) for name, array in arrays.items())
      speed.add(amounts(batch, parts), flops=work(*shapes_of_batch))
      progress.advance(step)
      if step == start + 1:
        jax.block_until_ready(metrics)
        speed.measure(step)  # The first step compiled: it says nothing about speed.

      last, leaving = step == config.steps, preemption.reached(step)
      logs, saves = (last or step % config[section].every == 0 for section in ("log", "checkpoint"))
      saves = saves or leaving
      evaluates = last or (config.eval.every > 0 and step % config.eval.every == 0)
      if logs or saves or evaluates:
        metrics = {name: float(value) for name, value in metrics.items()}
        if not math.isfinite(metrics["loss"]):
          way_out = "Lower optimizer.learning_rate or set optimizer.clip_norm"
          raise UserError(f"The loss is {metrics['loss']} at step {step}. {way_out}, in a new workdir.")
      if logs:
        metrics |= speed.measure(step)
        writers.write(step, metrics)
        progress.show(step, metrics)
      with speed.paused():
        results = {}
        if evaluates:
          results = evaluate.run(evaluators, state.get("ema", state["params"]), folder, step, note=progress.note)
          writers.write(step, results)
        if saves:
          saver.save(step, state, results, wait=leaving)
      if leaving and not last:
        progress.note(f"Asked to stop: saved step {step}. The same command goes on from there.")
        return PREEMPTED

  zoo.save(folder, model, state.get("ema", state["params"]))
  if start == config.steps:
    print(f"{folder} had reached step {start} already. Raise --config.steps to go on.")
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
