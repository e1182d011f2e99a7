"""Train any model of the zoo: python train.py --config=configs/clip_emoji.py --config.steps=500

The config names a model, an objective, data, an optimiser and a sharding; this file puts them together and names none.
The same command goes on where an interrupted run stopped. `--help` lists what can be set.
"""

import contextlib
import functools
import sys
from typing import Any

import jax

import zoo
from zoo import evaluate, hosts, page, sharding
from zoo.checkpoints.manager import Checkpoints
from zoo.config.loading import check_same_run, load, save, without
from zoo.config.schema import resolve
from zoo.data.ledger import Ledger
from zoo.errors import UserError, exits_with_one_line, setting_up
from zoo.evaluate import artifacts
from zoo.hosts.libtpu import hush_libtpu
from zoo.hosts.lock import Claim
from zoo.hosts.watchdog import Watchdog
from zoo.perf import flops, memory, profiling
from zoo.perf.programs import Programs
from zoo.perf.speed import Speed, amounts
from zoo.plan.compile import explained
from zoo.plan.search import planned
from zoo.saving import check_target
from zoo.sharding.explain import explain
from zoo.storage import place
from zoo.train import guard, replay
from zoo.train.context import weights
from zoo.train.environment import environment
from zoo.train.experiment import experiment
from zoo.train.initial import load_into
from zoo.train.metrics import Writers, services
from zoo.train.model_data import pinned, resumed
from zoo.train.progress import Progress
from zoo.verify import check

FLAGS = {
  "plan": "compiles a step for chips that are not here, e.g. v5e:4x4, 2*v5p:4x4x4 or h100:8, and says what it would "
  "cost; auto, or auto:v5e:4x4, tries several meshes, rematerialisations and batch sizes; with --explain-sharding it "
  "shows that for these chips and compiles nothing",
  "profile": "traces what the devices do from a step to another, e.g. 10:13, and says which operations took longest",
  "replay": "looks into the batch of a step that went wrong, FOLDER/bad/step_120.0_of_1.npz, and trains nothing",
}
SWITCHES = {
  "explain-sharding": "shows where every parameter would live, and trains nothing",
  "verify-sharding": "compares loss, gradients and updates on the mesh with one device's, and trains nothing",
}


@exits_with_one_line
def main(argv: list[str]) -> int:
  """Trains what the arguments say; returns the exit status."""
  hush_libtpu()
  config, options = load(argv, FLAGS, SWITCHES)
  if "plan" in options:
    if "profile" in options or "replay" in options:
      raise UserError("--plan trains nothing. Leave --profile and --replay away.")
    with setting_up():
      if options["explain-sharding"]:
        print(explained(config, options["plan"]))
      else:
        print(planned(config, options["plan"], note=lambda line: print(line, file=sys.stderr)))
    return 0
  steps = profiling.read(options["profile"], config.steps) if "profile" in options else None
  limits = config.timeouts
  with Watchdog(limits.step, limits.other) as watchdog:
    hosts.join(start=limits.start, heartbeat=limits.heartbeat)
    watchdog.host = f"host {jax.process_index()} of {jax.process_count()}"
    return train(config, options, watchdog, steps)


def train(config: Any, options: dict[str, Any], watchdog: Watchdog, profiled: tuple[int, int] | None) -> int:
  """What `main` does once the hosts have met."""
  folder = place(config.workdir)
  alike = resumed(config, folder)
  check_same_run(alike, folder)
  services(config.log.tensorboard, config.log.wandb)

  # What to train, on what, toward what. Nothing is written before all of it is known to fit together.
  with setting_up():
    mesh = sharding.make_mesh(config.mesh)
    made = experiment(alike, mesh, offers={"generate": zoo.generate})
    evaluators = evaluate.evaluators(config.eval, made.attending, config.data)
    if options["explain-sharding"]:
      print(explain(made.shapes, config.sharding, mesh))
      return 0
    if options["verify-sharding"]:
      print(check.verified(config, made, mesh))
      return 0
    notes: list[str] = []

    def initial():  # Every array is born where it will live.
      state = jax.jit(made.init, out_shardings=made.placed)(jax.random.key(config.seed))
      return load_into(resolve(config.init), state, made.model, note=notes.append) if config.init else state

    if "replay" in options:
      print(replay.replay(options["replay"], made, mesh, folder / "checkpoints", initial))
      return 0
    check_target(folder, made.model)
    memory.check_state(made.shapes, made.placed)
    record = check.before_training(config, made, mesh, folder, notes.append)
    abstract = jax.tree.map(lambda x, s: x.update(sharding=s), made.shapes, made.placed)
    aloud = functools.partial(print, file=sys.stderr, flush=True)
    claim = Claim(folder, patience=config.timeouts.heartbeat, note=aloud)
    kept = without(config.checkpoint, "every")
    saver = Checkpoints(folder / "checkpoints", **kept, note=notes.append, check=claim.check)
    state, start = saver.restore(abstract) or (initial(), 0)
    if start > config.steps:
      raise UserError(f"{folder} has reached step {start}, steps is {config.steps}. Raise --config.steps to go on.")
    if jax.process_index() == 0:
      save(pinned(config, made.model), folder)
    artifacts.write_json(folder, "environment.json", environment())
    if record is not None:
      artifacts.write_json(folder, check.FILE, record)
    told = lambda line: progress.note(line)
    ledger = Ledger(folder, made.batches.records, start, evaluate.left_out(evaluators), note=told)
    writers = Writers(folder, step=start, tensorboard=config.log.tensorboard, wandb=config.log.wandb)

  progress = Progress(config.steps, step=start)
  for note in notes:
    progress.note(note)
  progress.note(
    f"{made.parameters:,} parameters on {mesh.size} {mesh.devices.flat[0].platform} device(s), run folder {folder}"
  )
  speed = Speed(start, peak=flops.peak_of(mesh.devices.flat))
  run_step, collect = Programs(made.compiled_step(), speed), made.compiled_collect()
  frozen = made.frozen_arguments(made.frozen.put())
  profile = profiling.Profile(profiled, folder, start, speed=speed, note=progress.note, other=watchdog.other)
  run_page = page.Updates(folder, progress.note)
  keep = lambda step: replay.keep(folder, step, made.batches[step - 1], made.part, made.parts)
  watch = guard.Watch(**config.bad_loss, keep=keep, note=progress.note)

  @functools.cache  # Batches of texts have a few shapes, each a program of its own.
  def work(*batch):
    return made.model_flops(dict(batch)) if speed.peak else 0

  closing = contextlib.closing
  with hosts.Preemption() as preemption, claim, saver, closing(writers), closing(progress), closing(profile):
    if start == 0 and watch.action == "roll_back":
      saver.save(0, state)
    stream = made.batches.noting(ledger.met)
    step, batches = start, stream.iterate(start)
    while step < config.steps:
      step += 1
      profile.before(step, state)
      with speed.timed("data"):
        batch = next(batches)
      with speed.timed("dispatch"):
        arrays = sharding.put_batch(batch, mesh)
        if collect is not None:
          arrays = collect(state, arrays, *frozen)
      shapes_of_batch = tuple((name, jax.ShapeDtypeStruct(x.shape, x.dtype)) for name, x in arrays.items())
      if step == start + 1:
        progress.note("compiling the first step")
      with watchdog.compiling(shapes_of_batch) as first, jax.profiler.StepTraceAnnotation("train", step_num=step):
        with setting_up() if first else contextlib.nullcontext():  # Here the step is traced.
          donated, (state, metrics, guarded) = state, run_step(shapes_of_batch, state, arrays, *frozen)
        if first:
          with speed.timed("device"):
            jax.block_until_ready(metrics)
      with speed.paused():  # Counting FLOPs traces the model, once per shape.
        speed.add(amounts(batch, made.parts), flops=work(*shapes_of_batch))
      progress.advance(step)
      if step == start + 1:
        speed.measure(step)  # The first step warms up: it says nothing about speed.
        for line in made.attention.lines():
          progress.note(line)
      profile.after(step, state, run_step.compiled)

      last, leaving = step == config.steps, preemption.reached()
      logs, saves = (last or step % config[section].every == 0 for section in ("log", "checkpoint"))
      saves = saves or leaving
      evaluates = last or (config.eval.every > 0 and step % config.eval.every == 0)
      with speed.timed("device"):
        del donated  # The last reference: on CPUs JAX 0.7 waits here for the step.
        bad = watch.look(step, guarded, wait=logs or saves or evaluates)
      watchdog.step_done()
      if logs or saves or bad is not None:
        with speed.paused():
          left_out = ledger.look(saves=saves or bad is not None)
      if bad is not None:
        with speed.paused(), watchdog.other():
          state = guard.roll_back(saver, abstract, bad)
        step, batches, logs = bad, stream.iterate(bad), False
        last = evaluates = step == config.steps
      if logs:
        metrics = {name: float(value) for name, value in metrics.items()}
        metrics |= left_out | speed.measure(step) | run_step.measure()
        writers.write(step, metrics)
        progress.show(step, metrics)
      with speed.paused(), watchdog.other():
        results = {}
        if evaluates:
          results = evaluate.run(evaluators, weights(state), folder, step, note=progress.note)
          writers.write(step, results)
        if evaluates or saves:
          writers.flush()
        if saves:
          guard.check_finite(state["params"], step)
          saver.save(step, state, results, wait=leaving)
        if evaluates or saves:
          run_page.update(last=last or leaving)
      if leaving and not last:
        progress.note(f"Asked to stop: saved step {step}. The same command goes on from there.")
        return preemption.status
    with watchdog.other():
      saver.wait()
      claim.check()
      zoo.save(folder, made.model, weights(state))

  if start == config.steps:
    print(f"{folder} had reached step {start} already. Raise --config.steps to go on.")
  return 0


if __name__ == "__main__":
  hosts.run(main, sys.argv[1:])
