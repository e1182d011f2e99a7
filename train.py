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

import zoo
from zoo import evaluate, flops, hosts, saving, sharding
from zoo.checkpoints import Checkpoints
from zoo.config import check_same_run, load, save, without
from zoo.errors import UserError, exits_with_one_line, setting_up
from zoo.experiment import experiment
from zoo.explain import explain
from zoo.metrics import Writers
from zoo.plan import plan, show
from zoo.progress import Progress, Speed, amounts
from zoo.schema import resolve

FLAGS = {"plan": "compiles a step for chips that are not here, e.g. v5e:4x4, and says what it would cost"}
SWITCHES = {"explain-sharding": "shows where every parameter would live, and trains nothing"}
PREEMPTED = 143  # 128 + SIGTERM: not zero, so that a scheduler starts the job again.


@exits_with_one_line
def main(argv: list[str]) -> int:
  """Trains what the arguments say; returns the exit status."""
  config, options = load(argv, FLAGS, SWITCHES)
  if "plan" in options:
    with setting_up():
      print(show(plan(config, options["plan"])))
    return 0
  hosts.join()
  folder = pathlib.Path(config.workdir)
  check_same_run(config, folder)

  # What to train, on what, toward what. Nothing is written before all of it is known to fit together.
  with setting_up():
    mesh = sharding.make_mesh(config.mesh)
    made = experiment(config, mesh)
    evaluators = evaluate.evaluators(config.eval, made.model)
    if options["explain-sharding"]:
      print(explain(made.shapes, config.sharding, mesh))
      return 0
    # Every array is born where it will live.
    run_step, place = made.compiled_step(), lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
    abstract = jax.tree.map(place, made.shapes, made.placed)
    saver = Checkpoints(folder / "checkpoints", **without(config.checkpoint, "every"))
    restored = saver.restore(abstract)
    state, start = restored or (jax.jit(made.init, out_shardings=made.placed)(jax.random.key(config.seed)), 0)
    if start > config.steps:
      raise UserError(f"{folder} has reached step {start}, steps is {config.steps}. Raise --config.steps to go on.")
    notes: list[str] = []
    if config.init and restored is None:
      state = saving.load_into(resolve(config.init), state, made.model, note=notes.append)
    if jax.process_index() == 0:
      save(config, folder)
    writers = Writers(folder, step=start, tensorboard=config.log.tensorboard, wandb=config.log.wandb)

  preemption = hosts.Preemption()
  progress = Progress(config.steps, step=start)
  for note in notes:
    progress.note(note)
  progress.note(
    f"{made.parameters:,} parameters on {mesh.size} {mesh.devices.flat[0].platform} device(s), run folder {folder}"
  )
  speed = Speed(start, peak=flops.peak_of(mesh.devices.flat))

  @functools.cache  # Batches of texts have a few shapes, each a program of its own.
  def work(*batch):
    return made.model_flops(dict(batch)) if speed.peak else 0

  with contextlib.closing(saver), contextlib.closing(writers), contextlib.closing(progress):
    for step, batch in zip(range(start + 1, config.steps + 1), made.batches.iterate(start), strict=False):
      arrays = sharding.put_batch(batch, mesh)
      state, metrics = run_step(state, arrays)
      shapes_of_batch = ((name, jax.ShapeDtypeStruct(array.shape, array.dtype)) for name, array in arrays.items())
      speed.add(amounts(batch, made.parts), flops=work(*shapes_of_batch))
      progress.advance(step)
      if step == start + 1:
        jax.block_until_ready(metrics)
        speed.measure(step)  # The first step compiled: it says nothing about speed.
        for line in made.attention.lines():
          progress.note(line)

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

  zoo.save(folder, made.model, state.get("ema", state["params"]))
  if start == config.steps:
    print(f"{folder} had reached step {start} already. Raise --config.steps to go on.")
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
