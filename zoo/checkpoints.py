"""The checkpoints of a run in progress: whole training states, written in the background by Orbax.

A step is written to a temporary folder and renamed when all of it is there, so that a killed run leaves finished
checkpoints and perhaps one torn folder, which is never read and is removed by the next run. The state may be read back
on any number of devices and processes, in any sharding. Finished models are saved by `zoo.saving`.
"""

import contextlib
import functools
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from zoo import checksums
from zoo.errors import UserError, did_you_mean
from zoo.mismatch import mismatch
from zoo.paths import path_name

CHECKSUMS = "checksums.json"


class Checkpoints:
  """The newest `keep` states in `folder`, and the best one.

  Args:
    folder: where the checkpoints go, one subfolder per step; made if it is not there. May be a bucket (`gs://...`).
    keep: how many of the newest to keep.
    best: name of the metric whose best checkpoint is kept too, e.g. `eval/retrieval/r1`.
    best_mode: "max" or "min": what is best.
  """

  def __init__(self, folder: str | os.PathLike, *, keep: int = 2, best: str | None = None, best_mode: str = "max"):
    if keep < 1 or best_mode not in ("max", "min"):
      raise UserError(
        f"Checkpoints keep {keep}, best_mode {best_mode!r}. Keep at least 1; best_mode is 'max' or 'min'."
      )
    self.folder = _absolute(folder)
    if self.folder.exists() and not self.folder.is_dir():
      raise UserError(f"{self.folder} is a file, so no checkpoints can be kept there. Choose another workdir.")
    scores(self.folder)  # Orbax reads them too, and does not say which of them it cannot read.
    self.best_name, self.best_mode = best, best_mode
    for name in ("absl", "asyncio"):
      logging.getLogger(name).addFilter(_is_not_a_traceback_of_orbax)
    _hush_writes_that_fail_late()
    options = ocp.CheckpointManagerOptions(
      # Without a best_fn Orbax writes no metrics; which checkpoints stay is decided by the policy alone. Left to
      # `max_to_keep` and `best_fn`, Orbax would keep the best ones and delete the newest.
      best_fn=lambda metrics: metrics["value"],
      preservation_policy=_NewestAndBest(keep),
      async_options=ocp.AsyncOptions(post_finalization_callback=self._list_files),
      cleanup_tmp_directories=True,
    )
    try:
      self.manager = ocp.CheckpointManager(self.folder, options=options)
    except (OSError, ValueError) as error:
      raise UserError(f"{self.folder} cannot be used for checkpoints: {_reason(error)}.") from error

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
      metrics: what was measured at this step; only the one called `best` matters.
      wait: return only when the checkpoint is complete.

    Raises:
      UserError: the checkpoint before could not be written; or there are `metrics`, none of them called `best`.
    """
    step = int(step)
    value = (metrics or {}).get(self.best_name)
    score = {"name": self.best_name, "mode": self.best_mode, "value": None if value is None else float(value)}
    saved = step not in self.manager.all_steps()
    if saved:
      with self._saving():
        self.manager.save(step, args=ocp.args.Composite(state=ocp.args.PyTreeSave(state)), metrics=score, force=True)
    unknown = metrics and self.best_name is not None and self.best_name not in metrics
    if wait or unknown:
      self.wait()
    if unknown:
      near = did_you_mean(self.best_name, metrics)
      raise UserError(f"checkpoint.best is '{self.best_name}', never measured.{near} There is: {', '.join(metrics)}.")
    return saved

  def restore(self, shapes: Any) -> tuple[Any, int] | None:
    """The newest state and its step; None if nothing was saved yet.

    Args:
      shapes: tree of `jax.ShapeDtypeStruct` with the shardings wanted; numbers and numpy arrays stay what they are.

    Raises:
      UserError: the checkpoint cannot be read, or holds arrays of other names, shapes or dtypes.
    """
    self.wait()
    step = self.latest
    return None if step is None else (read(self.folder / str(step), shapes), step)

  def wait(self) -> None:
    """Returns when everything saved so far is complete on disk."""
    with self._saving():
      self.manager.wait_until_finished()

  def close(self) -> None:
    """Waits, then ends the background threads."""
    with self._saving():
      self.manager.close()

  def _list_files(self) -> None:
    """Runs in the background when all files are written, before Orbax gives the folder its final name.

    With many hosts, or in a bucket, reading everything back would cost more than it protects from.
    """
    if jax.process_count() == 1 and "://" not in os.fspath(self.folder):
      for unfinished in _torn(self.folder):
        checksums.write(unfinished / "state", to=unfinished / CHECKSUMS)

  @contextlib.contextmanager
  def _saving(self) -> Generator[None]:
    """Turns whatever goes wrong while writing into one line, and takes the torn folder away: it may fill the disk."""
    try:
      yield
    except (OSError, ValueError, RuntimeError) as error:
      if jax.process_index() == 0:
        for torn in _torn(self.folder):
          torn.rmtree(missing_ok=True)
      newest = self.latest
      left = "No earlier checkpoint is there" if newest is None else f"The checkpoint of step {newest} is intact"
      raise UserError(
        f"Cannot save a checkpoint in {self.folder}: {_reason(error)}. {left}. "
        "Make room (or choose another workdir) and run the same command again."
      ) from error


def steps(folder: str | os.PathLike) -> list[int]:
  """The finished checkpoints in `folder`, in increasing order. Torn and temporary folders do not count."""
  folder = _absolute(folder)
  if not folder.is_dir():
    return []
  return sorted(found.step for found in ocp.path.step.standard_name_format().find_all(folder))


def read(folder: str | os.PathLike, shapes: Any) -> Any:
  """The part of one checkpoint that `shapes` describes: a whole state, or e.g. `{"params": ...}` alone.

  Args:
    folder: of one step.
    shapes: as for `Checkpoints.restore`; an array without a sharding goes to the first device.
  """
  folder = _absolute(folder)
  with _reading(folder):
    if (folder / CHECKSUMS).exists() and (damage := checksums.damaged(folder / "state", folder / CHECKSUMS)):
      raise OSError(damage)
  stored = describe(folder)
  first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  shapes = jax.tree.map(lambda leaf: _placed(leaf, first), shapes)
  partial = isinstance(shapes, Mapping) and not set(shapes) >= {name.split("/")[0] for name in stored}
  wanted = _kinds(shapes)
  expected = {name: kind for name, kind in stored.items() if not partial or name.split("/")[0] in shapes}
  if expected != wanted:
    raise UserError(
      f"{folder} holds another model or optimizer: {mismatch(expected, wanted)}. "
      "Restore with the config it was trained with, or choose another workdir."
    )
  restore = ocp.args.PyTreeRestore(
    item=shapes, restore_args=ocp.checkpoint_utils.construct_restore_args(shapes), partial_restore=partial
  )
  with _reading(folder):
    return ocp.PyTreeCheckpointer().restore(folder / "state", args=restore)


def describe(folder: str | os.PathLike) -> dict[str, str]:
  """`{path: "float32 (3, 4)"}` of everything in the checkpoint `folder`, without reading the arrays."""
  folder = _absolute(folder)
  with _reading(folder):
    return _kinds(ocp.PyTreeCheckpointHandler().metadata(folder / "state").tree)


class _NewestAndBest:
  """Keeps the last `newest` checkpoints and the one with the best finite value of its metric."""

  def __init__(self, newest: int):
    self.newest = newest

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
    kept = {found.step for found in checkpoints[-self.newest :]}
    kept.add(best_step({found.step: found.metrics for found in checkpoints}))
    return [found.step in kept for found in checkpoints]


def best_step(scores: Mapping[int, Mapping[str, Any] | None]) -> int | None:
  """The step whose stored score is best, the newest of equals; None if no step has a finite one.

  If the metric to go by was changed during the run, only scores by the newest one count.
  """
  finite = {n: score for n, score in scores.items() if score and score["value"] is not None}
  finite = {n: score for n, score in finite.items() if math.isfinite(score["value"])}
  if not finite:
    return None
  name, mode = (finite[max(finite)][key] for key in ("name", "mode"))
  values = {n: score["value"] for n, score in finite.items() if (score["name"], score["mode"]) == (name, mode)}
  return max(values, key=lambda n: (values[n] if mode == "max" else -values[n], n))


def scores(folder: str | os.PathLike) -> dict[int, dict[str, Any] | None]:
  """The score stored with each checkpoint in `folder`, for `best_step`."""
  folder = _absolute(folder)
  files = {step: folder / str(step) / "metrics" / "metrics" for step in steps(folder)}
  return {step: _score(file) if file.exists() else None for step, file in files.items()}


def _score(file: epath.Path) -> dict[str, Any] | None:
  with _reading(file.parent.parent):
    return json.loads(file.read_text())


@contextlib.contextmanager
def _reading(folder: epath.Path) -> Generator[None]:
  try:
    yield
  except Exception as error:
    raise UserError(
      f"{folder} cannot be read: {_reason(error)}. Remove that folder to go back to the checkpoint before it."
    ) from error


def _kinds(tree: Any) -> dict[str, str]:
  """`float32 (3, 4)` for every leaf. A Python number has the dtype that Orbax stores it as."""
  numbers = {int: "int64", float: "float64", bool: "bool"}
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    path_name(path): f"{leaf.dtype if hasattr(leaf, 'dtype') else numbers[type(leaf)]} {getattr(leaf, 'shape', ())}"
    for path, leaf in leaves
  }


def _placed(leaf: Any, sharding: jax.sharding.Sharding) -> Any:
  if isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding is None:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
  return leaf


def _torn(folder: epath.Path) -> list[epath.Path]:
  return [path for path in folder.iterdir() if ".orbax-checkpoint-tmp" in path.name] if folder.is_dir() else []


def _absolute(folder: str | os.PathLike) -> epath.Path:
  text = os.fspath(folder)
  return epath.Path(text if "://" in text else os.path.abspath(text))


def _reason(error: Exception) -> str:
  """The telling part of an error; TensorStore appends a kilobyte of specification."""
  text = " ".join(str(error).split()) or type(error).__name__
  if "RESOURCE_EXHAUSTED" in text or "No space left" in text:
    return "no space left on the disk"
  return text.split(" [")[0][:300].rstrip(".")


def _is_not_a_traceback_of_orbax(record: logging.LogRecord) -> bool:
  """Orbax logs pages of tracebacks for a failure that we raise and report in one line."""
  return not (record.exc_info and "orbax" in f"{record.pathname} {record.getMessage()}")


def _hush_writes_that_fail_late() -> None:
  """Of several writes that fail Orbax waits for the first, then closes its event loop: TensorStore's threads print a
  traceback for each of the others, which cannot tell the loop any more. Some are logged by asyncio, see above."""
  before = sys.unraisablehook
  if getattr(before, "func", None) is not _without_late_writes:
    sys.unraisablehook = functools.partial(_without_late_writes, before)


def _without_late_writes(show: Callable, unraisable: Any) -> None:
  error = unraisable.exc_value
  if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed" and unraisable.object is None):
    show(unraisable)
