"""A run of an experiment: the lock, the checkpoints, the logs and the guards around its steps.

state = run.restore(initial)
with run.started(state) as steps:
  for step, batch in steps:
    state, metrics, health = run.step(state, batch)
    state = run.after(step, state, metrics, health)
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import jax

from zoo import hosts, sharding
from zoo.build import check_tokens
from zoo.checkpoints.manager import Checkpoints
from zoo.checkpoints.retention import check_measured
from zoo.config.loading import without
from zoo.data.ledger import Ledger
from zoo.errors import UserError, setting_up
from zoo.hosts.lock import RunLock
from zoo.hosts.watchdog import Watchdog
from zoo.perf import flops, profiling
from zoo.perf.programs import CompiledSteps
from zoo.perf.speed import Speed, amounts
from zoo.progress import progress, reported_by
from zoo.train import guard, replay
from zoo.train.context import weights_of_state
from zoo.train.experiment import Experiment
from zoo.train.metrics import Writers
from zoo.train.progress import Progress


class Run:
  """The side effects of a run around its pure steps.

  Args:
    config: from `zoo.config.loading.load`.
    folder: of the run, an `epath.Path`.
    experiment: the `Experiment` to train.
    watchdog: of this process.
    profiled: the first and the last step to profile; None: none.
    evaluate: (weights, folder, step, note=..., only=...) -> results, {"eval/KEY/METRIC": float}; the weights are those
      of `zoo.train.context.weights_of_state`. only: a metric, whose evaluator alone is run.
    left_out: errors of the records that evaluators skip, by the name of their data.
    page: (folder, note) -> an object with `update(last=...)`, which writes the page of the run.

  Attributes:
    start: number of steps done before; known once the state is restored.
    leaving: whether the run was asked to stop and has saved its state.
  """

  def __init__(
    self,
    config: Any,
    folder: Any,
    experiment: Experiment,
    watchdog: Watchdog,
    *,
    profiled: tuple[int, int] | None,
    evaluate: Callable[..., dict[str, float]],
    left_out: Mapping[str, list[str]],
    page: Callable[..., Any],
  ):
    self._config, self._folder, self._experiment, self._watchdog = config, folder, experiment, watchdog
    self._profiled, self._evaluate, self._left_out, self._page_of = profiled, evaluate, left_out, page
    self._notes: list[str] = long_warmup(config)
    self._show: Callable[[str], Any] = self._notes.append
    self.start, self.leaving = 0, False
    shapes, placed = experiment.shapes, experiment.placed
    self._abstract = jax.tree.map(lambda x, s: x.update(sharding=s), shapes, placed)

  def note(self, line: str) -> None:
    """Prints a line above the progress bar, once there is one."""
    self._show(line)

  def restore(self, initial: Callable[[], Any]) -> Any:
    """Locks the folder and returns the state of its newest checkpoint, or `initial()` if there is none.

    Raises:
      UserError: another job uses the folder, its checkpoints are of another model or corrupt, it has more steps than
        the config, or no evaluator measures `checkpoint.best`.
    """
    config, folder = self._config, self._folder
    warn = functools.partial(print, file=sys.stderr, flush=True)
    self._lock = RunLock(folder, patience=config.timeouts.heartbeat, note=warn)
    options = without(config.checkpoint, "every")
    self._saver = Checkpoints(folder / "checkpoints", **options, note=self.note, check=self._lock.check)
    with contextlib.ExitStack() as on_error:
      on_error.push(self._lock)
      with progress(f"reading or making the state of {folder}"):
        state, self.start = self._saver.restore(self._abstract) or (initial(), 0)
      if self.start > config.steps:
        raise UserError(
          f"{folder} has reached step {self.start}, and steps is {config.steps}. Raise --config.steps to train on."
        )
      if self.start < config.steps and not self._saver.is_best_measured():
        self._check_best(state)
      on_error.pop_all()
    return state

  def _check_best(self, state: Any) -> None:
    """Runs the evaluator of `checkpoint.best` once: otherwise a misspelt metric would show after hours of training."""
    best = self._config.checkpoint.best
    with self._watchdog.other(), progress(f"measuring {best} once, to see that it is measured"):
      check_measured(best, self._evaluate(weights_of_state(state), None, self.start, only=best))

  @contextlib.contextmanager
  def started(self, state: Any) -> Generator[Iterator[tuple[int, dict]]]:
    """Context of a run: opens and closes its resources -> its steps, (number from 1, batch)."""
    config, experiment, start = self._config, self._experiment, self.start
    with setting_up():
      self._ledger = Ledger(self._folder, experiment.batches.records, start, self._left_out, note=self.note)
      writers = Writers(self._folder, step=start, tensorboard=config.log.tensorboard, wandb=config.log.wandb)
    self._writers, self._progress = writers, Progress(config.steps, step=start)
    self._show = self._progress.note
    for line in self._notes:
      self.note(line)
    devices = experiment.by_row.mesh.devices
    platform = devices.flat[0].platform
    self.note(f"{experiment.parameters:,} parameters on {devices.size} {platform} device(s), run folder {self._folder}")
    self._speed = Speed(start, peak=flops.peak_of(devices.flat))
    self._programs, self._collect = (
      CompiledSteps(experiment.compiled_step(), self._speed),
      experiment.compiled_collect(),
    )
    self._frozen = experiment.frozen_arguments(experiment.frozen.put())
    self._profile = profiling.Profile(
      self._profiled, self._folder, start, speed=self._speed, note=self.note, other=self._watchdog.other
    )
    self._page = self._page_of(self._folder, self.note)
    keep = lambda step: replay.keep(self._folder, step, experiment.batches[step - 1], experiment.part, experiment.parts)
    self._watch = guard.LossGuard(**config.bad_loss, keep=keep, note=self.note)
    # Bucketed batches have a few shapes, each with its own program, whose FLOPs are counted once.
    self._flops = functools.cache(lambda *shapes: experiment.model_flops(dict(shapes)) if self._speed.peak else 0)
    self._state, self._done = state, start
    del state  # No reference to the state may be kept here, since steps donate it.
    self._stream = experiment.batches.noting(self._ledger.met)
    closing = contextlib.closing
    with hosts.Preemption() as self._preemption, self._lock, self._saver, closing(writers), closing(self._progress):
      with closing(self._profile):
        if start == 0 and self._watch.action == "roll_back":
          self._saver.save(0, self._state)
        self._batches = self._stream.iterate(start)
        with reported_by(self.note):
          yield self._steps()

  def _steps(self) -> Iterator[tuple[int, dict]]:
    while self._done < self._config.steps and not self.leaving:
      self._profile.before(self._done + 1, self._state)
      with self._speed.timed("data"):
        batch = next(self._batches)
        check_tokens(self._experiment.model, batch, f"Step {self._done + 1}")
        for name, model in self._experiment.frozen.models.items():
          check_tokens(model, batch, f"Step {self._done + 1}, frozen.{name}")
      yield self._done + 1, batch

  def step(self, state: Any, batch: Mapping) -> tuple[Any, dict, dict]:
    """Dispatches the next step -> state, metrics, health for `after`; all asynchronous arrays.

    Args:
      state: donated.
      batch: this host's part of it, numpy.
    """
    experiment, step = self._experiment, self._done + 1
    first_of_run = step == self.start + 1
    with self._speed.timed("dispatch"):
      arrays = sharding.put_batch(batch, experiment.by_row.mesh)
      if self._collect is not None:
        arrays = self._collect(state, arrays, *self._frozen)
    shapes = tuple((name, jax.ShapeDtypeStruct(x.shape, x.dtype)) for name, x in arrays.items())
    with self._watchdog.compiling(shapes) as first, jax.profiler.StepTraceAnnotation("train", step_num=step):
      with setting_up() if first else contextlib.nullcontext():  # Traces the step.
        with progress(f"compiling step {step}") if first else contextlib.nullcontext():
          state, metrics, health = self._programs(shapes, state, arrays, *self._frozen)
      if first:
        with self._speed.timed("device"):
          jax.block_until_ready(metrics)
    with self._speed.paused():  # Counting FLOPs traces the model, once per shape.
      self._speed.add(amounts(batch, experiment.parts), flops=self._flops(*shapes))
    self._progress.advance(step)
    if first_of_run:
      self._speed.measure(step)  # The first step is a warm-up and not timed.
      for line in experiment.attention.lines():
        self.note(line)
    self._profile.after(step, state, self._programs.compiled)
    return state, metrics, health

  def after(self, step: int, state: Any, metrics: Mapping, health: Mapping) -> Any:
    """After a step: logs, evaluates and saves when due -> the state to continue with.

    That is `state`, or an earlier one if the step was bad and the config rolls back.

    Raises:
      UserError: the loss, or the parameters to save, are not finite, or the lock was lost.
    """
    config = self._config
    last, leaving = step == config.steps, self._preemption.reached()
    logs, saves = (last or step % config[section].every == 0 for section in ("log", "checkpoint"))
    saves = saves or leaving
    evaluates = last or (config.eval.every > 0 and step % config.eval.every == 0)
    with self._speed.timed("device"):
      self._state = state  # Drops the last reference to the donated state: on CPUs JAX 0.7 waits here for the step.
      bad = self._watch.observe(step, health, wait=logs or saves or evaluates)
    self._watchdog.step_done()
    if logs or saves or bad is not None:
      with self._speed.paused():
        left_out = self._ledger.look(saves=saves or bad is not None)
    if bad is not None:
      with self._speed.paused(), self._watchdog.other():
        self._state = state = guard.roll_back(self._saver, self._abstract, bad)
      step, self._batches, logs = bad, self._stream.iterate(bad), False
      last = evaluates = step == config.steps
    if logs:
      values = {name: float(value) for name, value in metrics.items()}
      values |= left_out | self._speed.measure(step) | self._programs.measure()
      self._writers.write(step, values)
      self._progress.show(step, values)
    with self._speed.paused(), self._watchdog.other():
      results = {}
      if evaluates:
        results = self._evaluate(weights_of_state(state), self._folder, step, note=self.note)
        self._writers.write(step, results)
      if evaluates or saves:
        self._writers.flush()
      if saves:
        guard.check_finite(state["params"], step, state.get("shared"))
        self._saver.save(step, state, results, wait=leaving)
      if evaluates or saves:
        self._page.update(last=last or leaving)
    self._done, self.leaving = step, leaving and not last
    return state

  def left(self) -> int:
    """Reports that the run was asked to stop -> its exit status."""
    self.note(f"Asked to stop: saved step {self._done}. Run the same command again to resume.")
    return self._preemption.status

  @contextlib.contextmanager
  def finishing(self) -> Generator[None]:
    """Context for writing after the last step: every checkpoint is on disk, and the lock is still held."""
    with self._watchdog.other():
      self._saver.wait()
      self._lock.check()
      yield


def long_warmup(config: Any) -> list[str]:
  """A warning if the warm-up of the learning rate is longer than the run."""
  warmup = config.optimizer.get("warmup_steps", 0)
  if warmup <= config.steps:
    return []
  return [
    f"Warning: optimizer.warmup_steps is {warmup}, steps {config.steps}: the learning rate does not reach its peak."
  ]
