"""Checkpoints of a run: full train states, written in the background by Orbax.

A step is written to a temporary folder and renamed when complete, so that a killed run leaves finished
checkpoints and perhaps one incomplete folder, which is never read and is removed by the next run. The state may be read
on any number of devices and processes, in any sharding. Finished models are saved by `zoo.saving`.

The state is saved with its `zoo.checkpoints.fingerprints`, computed before anything is written: a state that is read
with other bits is rejected. A single process on its own disk also verifies the CRC-32 of every file before reading.
"""

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Generator, Mapping
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from zoo import storage
from zoo.checkpoints.fingerprints import fingerprints
from zoo.checkpoints.orbax_logging import silence_orbax
from zoo.checkpoints.restore import (
  CHECKSUMS,
  FINGERPRINTS,
  SCORE,
  CorruptCheckpoint,
  absolute,
  described,
  error_of,
  misnamed,
  read_score,
  read_unverified,
  reason_of,
  saved_fingerprints,
  sum_of_score,
  verify,
)
from zoo.checkpoints.retention import NewestAndBest, check_measured
from zoo.errors import UserError
from zoo.hosts import consensus


class Checkpoints:
  """Checkpoint manager: keeps the newest `keep` train states in `folder`, and the best one.

  Args:
    folder: the checkpoints' folder, one subfolder per step; created if missing. May be a bucket (`gs://...`).
    keep: number of newest checkpoints to keep.
    best: name of the metric whose best checkpoint is kept too, e.g. `eval/retrieval/r1`.
    best_mode: whether "max" or "min" is best.
    note: called with messages about damaged checkpoints and the one used instead.
    check: called before a checkpoint is written; raises to prevent it.

  The last one that was restored is kept too, until a later one is: it is known to be intact.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    *,
    keep: int = 2,
    best: str | None = None,
    best_mode: str = "max",
    note: Callable[[str], Any] = print,
    check: Callable[[], Any] = lambda: None,
  ):
    if keep < 1 or best_mode not in ("max", "min"):
      raise UserError(
        f"Checkpoints keep {keep}, best_mode {best_mode!r}. Keep at least 1; best_mode is 'max' or 'min'."
      )
    self.folder = absolute(folder)
    if self.folder.exists() and not self.folder.is_dir():
      raise UserError(f"{self.folder} is a file, so no checkpoints can be kept there. Choose another workdir.")
    self.best_name, self.best_mode, self._note, self._check = best, best_mode, note, check
    self._policy = NewestAndBest(keep)
    silence_orbax()

  @functools.cached_property
  def manager(self) -> ocp.CheckpointManager:
    """Orbax's manager, created lazily: it reads the scores of all checkpoints, so corrupt ones must be known first."""
    scores(self.folder)  # Orbax does not name the checkpoint that it cannot read.
    options = ocp.CheckpointManagerOptions(
      # Without a best_fn Orbax writes no metrics; which checkpoints are kept is decided by the policy alone. With
      # `max_to_keep` and `best_fn`, Orbax would keep the best ones and delete the newest.
      best_fn=lambda metrics: metrics["value"],
      preservation_policy=self._policy,
      async_options=ocp.AsyncOptions(post_finalization_callback=self._list_files, barrier_sync_fn=consensus.barrier()),
      cleanup_tmp_directories=True,
    )
    try:
      return ocp.CheckpointManager(self.folder, options=options)
    except (OSError, ValueError) as error:
      raise UserError(f"{self.folder} cannot be used for checkpoints: {reason_of(error)}.") from error

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: object, *_: object) -> None:
    # Hosts finish a checkpoint together: a failed host does not wait for others, and its checkpoint stays incomplete.
    # So does one that a second Ctrl-C interrupts.
    if kind is None or (jax.process_count() == 1 and kind is not KeyboardInterrupt):
      self.close()

  @property
  def latest(self) -> int | None:
    """The newest finished step, None if there is none."""
    return max(steps(self.folder), default=None)

  def save(self, step: int, state: Any, metrics: Mapping[str, Any] | None = None, wait: bool = False) -> bool:
    """Copies `state` to the host and writes it in the background. False if that step is saved already.

    A failure of the background write (a full disk) surfaces in the next `save`, `wait` or `close`.

    Args:
      step: number of training steps done.
      state: tree of arrays and numbers.
      metrics: metrics of this step, of which only `best` is used.
      wait: return only when the checkpoint is complete.

    Raises:
      UserError: the previous checkpoint could not be written; or `metrics` has no `best`.
    """
    self._check()
    step = int(step)
    value = (metrics or {}).get(self.best_name)
    value = None if value is None else float(value)
    score = {"name": self.best_name, "mode": self.best_mode, "value": value, "step": step}
    saved = step not in self.manager.all_steps()
    if saved:
      sums = fingerprints(state) | {SCORE: sum_of_score(score)}
      items = {"state": ocp.args.PyTreeSave(state), FINGERPRINTS: ocp.args.JsonSave(sums)}
      with self._saving():
        self.manager.save(step, args=ocp.args.Composite(**items), metrics=score, force=True)
    unknown = metrics and self.best_name is not None and self.best_name not in metrics
    if wait or unknown:
      self.wait()
    if metrics and self.best_name is not None:
      check_measured(self.best_name, metrics)
    return saved

  def restore(self, shapes: Any) -> tuple[Any, int] | None:
    """Restores the newest intact state -> (state, step), of the same step on all hosts; None if nothing was saved yet.

    Checkpoints found damaged on the way are noted and renamed to `damaged-N`: they are never deleted, and never count
    again.

    Args:
      shapes: tree of `jax.ShapeDtypeStruct` with the target shardings; numbers and numpy arrays keep their types.

    Raises:
      UserError: none of the checkpoints is intact (they are not renamed), the newest intact one holds arrays of
        other names, shapes or dtypes, or none is named by its step.
    """
    if "manager" in self.__dict__:
      self.wait()
    saved_steps = consensus.from_first_host(steps(self.folder))
    for line in misnamed(self.folder, saved_steps):
      self._note(line)
    damaged: dict[int, str] = {}

    def is_intact(step: int, why: str | None) -> bool:
      """Whether the checkpoint is readable on all hosts; records it as damaged on every host if not."""
      if intact_everywhere := consensus.all_hosts(why is None):
        return intact_everywhere
      damaged[step] = why or "another host cannot read it"
      return False

    scored = [
      step for step in saved_steps if is_intact(step, error_of(lambda step=step: read_score(self.folder / str(step))))
    ]
    for step in reversed(scored):
      folder, state, saved, why = self.folder / str(step), None, {}, None
      try:
        state, saved = read_unverified(folder, shapes), saved_fingerprints(folder) or {}
        why = None if saved else "its fingerprints are missing"
      except CorruptCheckpoint as error:
        why = error.reason
      if is_intact(step, why) and is_intact(step, error_of(lambda here=(folder, state, saved): verify(*here))):
        self._set_aside(damaged, step)
        self._policy.verified = step
        return state, step
    if not damaged:
      return None
    listed = "; ".join(f"{step}: {damaged[step]}" for step in sorted(damaged, reverse=True))
    raise CorruptCheckpoint(
      f"{self.folder} cannot be resumed: none of its checkpoints is intact ({listed}). Nothing was changed. Bring "
      "back a "
      "copy, or choose another workdir to start again.",
      listed,
    )

  def _set_aside(self, damaged: Mapping[int, str], used: int) -> None:
    """Renames damaged checkpoints: their steps will be reached, and saved, again."""
    for step, why in damaged.items():
      names = (f"damaged-{step}{f'-{n}' if n > 1 else ''}" for n in itertools.count(1))
      aside = next(path for name in names if not (path := self.folder / name).exists())  # There may be earlier ones.
      if jax.process_index() == 0:
        try:
          (self.folder / str(step)).rename(aside)
        except OSError as error:
          raise UserError(
            f"{self.folder / str(step)} is damaged, and cannot be renamed: {reason_of(error)}."
          ) from error
      self._note(f"Warning: the checkpoint of step {step} is damaged ({why}). It is now {aside}. Using step {used}.")
    if damaged:
      if jax.process_count() > 1:
        multihost_utils.sync_global_devices("set aside")
      if "manager" in self.__dict__:
        self.manager.reload()

  def is_best_measured(self) -> bool:
    """Whether a checkpoint in the folder has a score of the metric `best`, or there is no such metric."""
    stored = [score for score in scores(self.folder).values() if score and score["value"] is not None]
    return self.best_name in {None, *(score["name"] for score in stored)}

  def wait(self) -> None:
    """Returns when everything saved so far is complete on disk."""
    with self._saving():
      self.manager.wait_until_finished()

  def close(self) -> None:
    """Waits, then ends the background threads."""
    if "manager" in self.__dict__:
      with self._saving():
        self.manager.close()

  def _list_files(self) -> None:
    """Writes checksums, in the background, once all files are written and before Orbax renames the folder.

    With many hosts, or in a bucket, reading everything back would be too expensive.
    """
    if jax.process_count() == 1 and "://" not in os.fspath(self.folder):
      for folder in _incomplete(self.folder):
        storage.write_checksums(folder / "state", to=folder / CHECKSUMS)

  @contextlib.contextmanager
  def _saving(self) -> Generator[None]:
    """Turns any error while writing into a one-line UserError, and removes the incomplete folder: it may fill the disk.

    JAX errors mean that a device or another host is lost, not that the disk failed; Orbax raises them as TimeoutError.
    """
    try:
      yield
    except (OSError, ValueError, RuntimeError) as error:
      if runtime_error := consensus.jax_error_in(error):
        raise runtime_error from None
      if jax.process_index() == 0:
        for torn in _incomplete(self.folder):
          with contextlib.suppress(OSError):  # A read-only folder cannot be cleaned up either.
            torn.rmtree(missing_ok=True)
      newest = self.latest
      remaining = "There is no earlier checkpoint" if newest is None else f"The checkpoint of step {newest} is intact"
      raise UserError(
        f"Cannot save a checkpoint in {self.folder}: {reason_of(error)}. {remaining}. "
        "Free some space (or choose another workdir) and run the same command again."
      ) from error


def steps(folder: str | os.PathLike) -> list[int]:
  """Steps of the finished checkpoints in `folder`, in increasing order; incomplete ones are ignored."""
  folder = absolute(folder)
  if not folder.is_dir():
    return []
  return sorted(entry.step for entry in ocp.path.step.standard_name_format().find_all(folder))


def read_state(folder: str | os.PathLike, shapes: Any) -> Any:
  """Restores the subtree of one checkpoint that `shapes` describes: the full state, or e.g. `{"params": ...}` alone.

  Args:
    folder: of one checkpoint.
    shapes: as for `Checkpoints.restore`; an array without a sharding is put on the first device.
  """
  folder = absolute(folder)
  read_score(folder)
  state = read_unverified(folder, shapes)
  saved = saved_fingerprints(folder)
  if saved is not None:
    verify(folder, state, saved)
  return state


def describe(folder: str | os.PathLike) -> dict[str, str]:
  """Path -> dtype and shape, "float32 (3, 4)", of every array in the checkpoint `folder`, without reading them."""
  return described(absolute(folder))


def scores(folder: str | os.PathLike) -> dict[int, dict[str, Any] | None]:
  """The score stored with each checkpoint in `folder`, for `zoo.checkpoints.retention.best_step`."""
  folder = absolute(folder)
  return {step: read_score(folder / str(step)) for step in steps(folder)}


def _incomplete(folder: epath.Path) -> list[epath.Path]:
  return [path for path in folder.iterdir() if ".orbax-checkpoint-tmp" in path.name] if folder.is_dir() else []
