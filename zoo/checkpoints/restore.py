"""Restores checkpoints, and distinguishes corrupt ones from those of another model.

Neither Orbax nor a disk reports changed bits of an array; other errors Orbax reports at great length.
"""

import contextlib
import json
import os
import zlib
from collections.abc import Callable, Collection, Generator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from zoo import storage
from zoo.checkpoints.fingerprints import fingerprints
from zoo.errors import UserError, shown
from zoo.hosts import consensus
from zoo.json_files import check_file, parse_json
from zoo.storage import as_path, is_remote
from zoo.tree import mismatch, path_name

CHECKSUMS, FINGERPRINTS, SCORE = "checksums.json", "fingerprints", "metrics/metrics"
METADATA = "_CHECKPOINT_METADATA"  # Written by Orbax.


class CorruptCheckpoint(UserError):
  """A checkpoint is unreadable or differs from what was saved; another may be intact. `reason` is the cause alone."""

  def __init__(self, message: str, reason: str):
    super().__init__(message)
    self.reason = reason


def saved_fingerprints(folder: epath.Path) -> dict[str, int] | None:
  """The fingerprints of the full state at the time it was saved; None if the folder has none."""
  with reading_errors(folder):
    sums = _parsed(folder / FINGERPRINTS / "metadata")
    if not isinstance(sums, dict | None) or not all(isinstance(number, int) for number in (sums or {}).values()):
      raise ValueError("its fingerprints are not integers")
    return sums


def read_score(folder: epath.Path) -> dict[str, Any] | None:
  """The score stored with a checkpoint, for `zoo.checkpoints.retention.best_step`; None if there is none.

  Raises:
    CorruptCheckpoint: it has changed, Orbax's metadata beside it is unreadable, or the folder is named after
      another step.
  """
  with reading_errors(folder):
    if (folder / METADATA).exists():
      check_file(folder / METADATA, 2**26)
    # Orbax reads these of every checkpoint before it saves another, without naming the one that it cannot read.
    ocp.path.step.standard_name_format().find_step(folder.parent, int(folder.name)).commit_timestamp_nsecs  # noqa: B018
    score = _parsed(folder / SCORE)
    if score is None:
      return None
    value = score["value"] if isinstance(score, dict) and {"name", "mode", "value"} <= set(score) else score
    if not isinstance(value, int | float | None):
      raise ValueError("its score is not a number")
    step = score.get("step", int(folder.name))  # Older checkpoints have none.
    if step != int(folder.name):
      raise ValueError(f"it was saved as the checkpoint of step {shown(step)} and renamed")
    if (saved_fingerprints(folder) or {}).get(SCORE, sum_of_score(score)) != sum_of_score(score):
      raise ValueError("its score has changed since it was saved")
    return score


def misnamed(folder: epath.Path, saved_steps: Collection[int]) -> list[str]:
  """Warnings of whole checkpoints whose folders are not named by their step, as 03, beside those of `saved_steps`.

  Raises:
    UserError: there are such alone, so that a run would begin again.
  """
  wholes = [path.name for path in folder.iterdir() if (path / METADATA).exists()] if folder.is_dir() else []
  strange = sorted(
    name
    for name in set(wholes) - {*map(str, saved_steps)}
    if not name.startswith("damaged-") and ".orbax-checkpoint-tmp" not in name
  )
  if strange and not saved_steps:
    raise UserError(
      f"{folder / strange[0]} is a checkpoint, but its name is no step, and there is no other checkpoint. Name it as "
      "it was, by its step alone (3), or choose another workdir."
    )
  return [
    f"Warning: {folder / name} is a checkpoint, but its name is no step: not used. Name it as it was, or move it away."
    for name in strange
  ]


def _parsed(file: epath.Path) -> Any:
  if not file.exists():
    return None
  check_file(file)
  return parse_json(file.read_text())


def sum_of_score(score: Mapping[str, Any]) -> int:
  """The CRC-32 of a score."""
  return zlib.crc32(json.dumps(score, sort_keys=True).encode())


def verify(folder: epath.Path, state: Any, saved: Mapping[str, int]) -> None:
  """Raises CorruptCheckpoint, on every host, unless `state`, full or in part, is bit-equal to the saved one."""
  changed = [name for name, number in fingerprints(state).items() if saved.get(name) != number]
  if changed:
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    why = f"the values of {', '.join(changed[:3])}{more} have changed since they were saved"
    raise CorruptCheckpoint(f"{folder} cannot be read: {why}. Take another checkpoint, or a copy.", why)


def read_unverified(folder: epath.Path, shapes: Any) -> Any:
  """As `zoo.checkpoints.manager.read_state`, without verifying fingerprints and without synchronising hosts."""
  with reading_errors(folder):
    if (folder / CHECKSUMS).exists() and (damage := storage.corrupt_files(folder / "state", folder / CHECKSUMS)):
      raise OSError(damage)
  stored = described(folder)
  first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  shapes = jax.tree.map(lambda leaf: _placed(leaf, first), shapes)
  partial = isinstance(shapes, Mapping) and not set(shapes) >= {name.split("/")[0] for name in stored}
  wanted_kinds = kinds(shapes)
  expected = {name: kind for name, kind in stored.items() if not partial or name.split("/")[0] in shapes}
  if expected != wanted_kinds:
    raise UserError(
      f"{folder} holds another model or optimizer: {mismatch(expected, wanted_kinds)}. "
      "Restore with the config it was trained with, or choose another workdir."
    )
  restore = ocp.args.PyTreeRestore(
    item=shapes, restore_args=ocp.checkpoint_utils.construct_restore_args(shapes), partial_restore=partial
  )
  with reading_errors(folder):
    # No PyTreeCheckpointer: it would wait for other hosts, of which one may have found a corrupt file.
    return ocp.PyTreeCheckpointHandler().restore(folder / "state", args=restore)


def described(folder: epath.Path) -> dict[str, str]:
  """Describes the arrays in the checkpoint `folder`: path -> dtype and shape, "float32 (3, 4)"."""
  with reading_errors(folder):
    return kinds(ocp.PyTreeCheckpointHandler().metadata(folder / "state").tree)


@contextlib.contextmanager
def reading_errors(folder: epath.Path) -> Generator[None]:
  """Turns any error into CorruptCheckpoint for `folder`, except JAX errors: a device failed or is out of memory."""
  try:
    yield
  except Exception as error:
    if runtime_error := consensus.jax_error_in(error):
      raise runtime_error from None
    why = reason_of(error)
    raise CorruptCheckpoint(f"{folder} cannot be read: {why}. Take another checkpoint, or a copy.", why) from error


def error_of(check: Callable[[], Any]) -> str | None:
  """Runs a check -> the reason of the CorruptCheckpoint it raises, or None."""
  try:
    check()
  except CorruptCheckpoint as error:
    return error.reason
  return None


def kinds(tree: Any) -> dict[str, str]:
  """Dtype and shape of every leaf, `float32 (3, 4)`. A Python number has the dtype that Orbax stores it as."""
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


def absolute(folder: str | os.PathLike) -> epath.Path:
  """The absolute path of `folder`, as Orbax requires; bucket URLs are absolute already."""
  return as_path(folder if is_remote(folder) else os.path.abspath(folder))


def reason_of(error: Exception) -> str:
  """The informative part of an error's message; TensorStore appends a kilobyte of specification."""
  text = " ".join(str(error).split()) or type(error).__name__
  if "RESOURCE_EXHAUSTED" in text or "No space left" in text:
    return "no space left on the disk"
  if "File too large" in text:
    return "a file is larger than the disk, or ulimit -f, allows"
  return text.split(" [")[0][:300].rstrip(".")
