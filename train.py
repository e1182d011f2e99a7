"""Train any model of the zoo: python train.py --config=configs/clip_emoji.py --config.steps=500

The config names a model, an objective, data, an optimiser and a sharding; this file puts them together and names none.
Re-run the same command to resume an interrupted run. `--help` lists what can be set.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax

import zoo
from zoo import evaluate, hosts, page, sharding
from zoo.build import unused_classes
from zoo.config.loading import check_same_run, load, save
from zoo.data.bad_records import check_all, listing
from zoo.errors import MISTAKE, UserError, exits_with_one_line, setting_up
from zoo.evaluate import artifacts
from zoo.evaluate.forward import opening
from zoo.finetune.filling import with_task
from zoo.hosts.libtpu import silence_libtpu
from zoo.hosts.watchdog import Watchdog
from zoo.perf import memory, profiling
from zoo.plan.compile import sharding_report
from zoo.plan.search import plan_report
from zoo.saving import check_target
from zoo.sharding.explain import explain
from zoo.storage import as_path
from zoo.train import replay
from zoo.train.context import weights_of_state
from zoo.train.environment import environment
from zoo.train.experiment import Experiment
from zoo.train.experiment import experiment as build_experiment
from zoo.train.initial import first_state
from zoo.train.metrics import services
from zoo.train.model_data import with_preprocessing_of_model, with_preprocessing_of_run
from zoo.train.run import Run
from zoo.verify import check

FLAGS = {
  "plan": "compiles the step for chips that you don't have, e.g. v5e:4x4, 2*v5p:4x4x4 or h100:8, and reports its "
  "cost; auto, or auto:v5e:4x4, tries several meshes, rematerialisations and batch sizes; with --explain-sharding it "
  "reports the sharding for these chips instead",
  "profile": "profiles the steps from FIRST to LAST, e.g. 10:13, and reports the slowest operations",
  "replay": "analyses the batch of a bad step, FOLDER/bad/step_120.0_of_1.npz, instead of training",
}
SWITCHES = {
  "check-data": "reads all records of training and evaluation and lists the bad ones, instead of training",
  "explain-sharding": "reports the sharding of every parameter, instead of training",
  "verify-sharding": "compares loss, gradients and updates on the mesh with one device's, instead of training",
}


@exits_with_one_line
def main(argv: list[str]) -> int:
  """Runs the command line: trains, or plans; returns the exit status."""
  silence_libtpu()
  config, options = load(argv, FLAGS, SWITCHES)
  if "plan" in options:
    if "profile" in options or "replay" in options:
      raise UserError("--plan does not train. Leave out --profile and --replay.")
    with setting_up():
      if options["explain-sharding"]:
        print(sharding_report(with_task(config), options["plan"]))
      else:
        print(plan_report(with_task(config), options["plan"], note=lambda line: print(line, file=sys.stderr)))
    return 0
  steps = profiling.parse_steps(options["profile"], config.steps) if "profile" in options else None
  limits = config.timeouts
  with Watchdog(limits.step, limits.other) as watchdog:
    hosts.join(start=limits.start, heartbeat=limits.heartbeat)
    watchdog.host = f"host {jax.process_index()} of {jax.process_count()}"
    return train(config, options, watchdog, steps)


def train(config: Any, options: dict[str, Any], watchdog: Watchdog, profiled: tuple[int, int] | None) -> int:
  """Trains a config, or prints a report that the options request; returns the exit status."""
  config = with_task(config)
  folder = as_path(config.workdir)
  settings = with_preprocessing_of_run(config, folder)
  warnings = check_same_run(settings, folder)
  services(config.log.tensorboard, config.log.wandb)

  with setting_up():  # Everything is checked before anything is written.
    with listing(options["check-data"]), opening() as sources:
      experiment = build_experiment(settings, sharding.make_mesh(config.mesh), offers={"generate": zoo.generate})
      evaluators = evaluate.evaluators(config.eval, experiment.model_with_kernels, config.data, config.checkpoint.best)
    evaluation, bad = functools.partial(evaluate.run, evaluators), evaluate.skipped_records(evaluators)
    run = Run(
      config, folder, experiment, watchdog, profiled=profiled, evaluate=evaluation, left_out=bad, page=page.Updates
    )
    for line in [*warnings, *unused_classes(experiment.model, experiment.batches.records.info)]:
      run.note(line)
    initial = functools.partial(first_state, config, experiment, note=run.note)
    if (status := shown(config, options, experiment, sources, initial)) is not None:
      return status
    check_target(folder, experiment.model)
    frozen = experiment.frozen
    memory.check_state(experiment.shapes, experiment.placed, (frozen.shapes, dict(frozen.placed)))
    verified = check.before_training(config, experiment, experiment.by_row.mesh, folder, run.note)
    state = run.restore(initial)
    if jax.process_index() == 0:
      save(with_preprocessing_of_model(config, experiment.model), folder)
    artifacts.write_json(folder, "environment.json", environment())
    if verified is not None:
      artifacts.write_json(folder, check.FILE, verified)

  with run.started(state) as steps:
    for step, batch in steps:
      state, metrics, health = run.step(state, batch)
      state = run.after(step, state, metrics, health)
    if run.leaving:
      return run.left()
    with run.finishing():
      zoo.save(folder, experiment.model, weights_of_state(state))

  if run.start == config.steps:
    print(f"{folder} had reached step {run.start} already. Raise --config.steps to train on.")
  return 0


def shown(
  config: Any, options: dict[str, Any], experiment: Experiment, sources: list, initial: Callable[[], Any]
) -> int | None:
  """Prints the report that the options request instead of training -> the exit status; None if they request none.

  Args:
    sources: the records that evaluators have opened.
    initial: returns the state of step 0.
  """
  mesh = experiment.by_row.mesh
  if options["check-data"]:
    fine, reports = zip(*map(check_all, [experiment.batches.records, *sources]))
    print("\n".join(reports))
    return 0 if all(fine) else MISTAKE
  if options["explain-sharding"]:
    print(explain(experiment.shapes, config.sharding, mesh, experiment.frozen.shapes))
  elif options["verify-sharding"]:
    print(check.verified(config, experiment, mesh))
  elif "replay" in options:
    print(replay.replay(options["replay"], experiment, mesh, as_path(config.workdir) / "checkpoints", initial))
  else:
    return None
  return 0


if __name__ == "__main__":
  hosts.run(main, sys.argv[1:])
