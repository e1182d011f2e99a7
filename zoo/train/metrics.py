"""Writers of metrics: `metrics.jsonl` always, TensorBoard and Weights & Biases on request."""

import contextlib
import importlib
import json
import math
import os
import time
from collections.abc import Generator, Mapping
from types import ModuleType
from typing import Any

import jax
from etils import epath

from zoo.errors import UserError
from zoo.extras import install
from zoo.json_files import check_file, parse_json
from zoo.storage import as_path, is_remote, replacing

LONGEST = 2**20  # Bytes of a line.
UPLOAD = 30.0  # Seconds between rewrites of a file in a bucket.


class _Object:
  """A text file in a bucket, with the file methods needed here."""

  def __init__(self, path: epath.Path):
    self._path, self._text = path, path.read_text() if path.exists() else ""
    self._sent = time.monotonic()

  @property
  def waited(self) -> float:
    return time.monotonic() - self._sent

  def write(self, text: str) -> None:
    self._text += text

  def flush(self) -> None:
    with replacing(self._path) as temporary:
      temporary.write_text(self._text)
    self._sent = time.monotonic()

  def close(self) -> None:
    self.flush()


class Writers:
  """Writes scalars to `folder`, from the first process only.

  A run that resumes at step k first drops what the interrupted one wrote beyond k, and any line it had not finished,
  so that `metrics.jsonl` reads as one uninterrupted run.

  An object in a bucket cannot grow: there `metrics.jsonl` is rewritten, at most every half minute, and by `flush`.

  Args:
    folder: of the run; created if missing. May be in a bucket; W&B's own files then stay here.
    step: where the run starts or resumes: the number of steps done.
    tensorboard: also write event files to `folder/tensorboard` (extra `tensorboard`).
    wandb: also log to Weights & Biases (extra `wandb`): a project name, or the keywords of `wandb.init`.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    *,
    step: int = 0,
    tensorboard: bool = False,
    wandb: str | Mapping[str, Any] | None = None,
  ):
    self._file = self._tensorboard = self._wandb = None
    if jax.process_index() != 0:
      return
    folder = as_path(folder)
    event_files, service = services(tensorboard, wandb)  # Before anything is written.
    folder.mkdir(parents=True, exist_ok=True)
    self.path = folder / "metrics.jsonl"
    drop_beyond(self.path, step)
    self._file = _Object(self.path) if is_remote(folder) else open(self.path, "a", encoding="utf-8")
    if event_files:
      self._tensorboard = event_files.SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
    if service and wandb:
      keywords = {"project": wandb} if isinstance(wandb, str) else {**wandb}
      self._wandb = service.init(
        **({} if is_remote(folder) else {"dir": str(folder)}),
        **{"id": _wandb_id(folder), "resume": "allow", **keywords},
      )

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    """Adds one line, `{"step": ..., "time": ..., **values}`; `values` are numbers or scalar arrays, none: no line.

    JSON has no NaN and no infinity: they are written as null, and left out of TensorBoard.
    """
    if self._file is None or not values:
      return
    scalars = {name: float(value) for name, value in values.items()}
    strict = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
    line = {"step": int(step), "time": round(time.time(), 3), **strict}
    with self._named():
      self._file.write(json.dumps(line, allow_nan=False) + "\n")
      if not isinstance(self._file, _Object) or self._file.waited > UPLOAD:
        self._file.flush()
    if self._tensorboard:
      for name, value in scalars.items():
        if math.isfinite(value):
          self._tensorboard.add_scalar(name, value, int(step))
      self._tensorboard.flush()
    if self._wandb:
      self._wandb.log(scalars, step=int(step))

  def flush(self) -> None:
    """Waits until all lines are stored: no checkpoint should outlive the lines before it."""
    if self._file:
      with self._named():
        self._file.flush()
        if not isinstance(self._file, _Object):
          os.fsync(self._file.fileno())

  def close(self) -> None:
    """Closes all writers; W&B waits until its service has everything."""
    if self._file:
      with (
        self._named()
      ):  # Suppressed here too: a failed write is retried on closing, and its error would hide the first.
        self._file.close()
    if self._tensorboard:
      self._tensorboard.close()
    if self._wandb:
      self._wandb.finish()

  @contextlib.contextmanager
  def _named(self) -> Generator[None]:
    try:
      yield
    except OSError as error:
      why = error.strerror or error
      raise UserError(
        f"{self.path} cannot be written: {why}. Free some space and run the same command again."
      ) from error


def read(path: str | os.PathLike) -> list[dict[str, Any]]:
  """The lines of a `metrics.jsonl`; unfinished and invalid ones are skipped."""
  lines = []
  for text in _texts(as_path(path)):
    try:
      line = parse_json(text)
    except ValueError:
      continue
    step = line.get("step") if isinstance(line, dict) else None
    if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 2**63:
      lines.append(line)
  return lines


def _texts(path: epath.Path) -> Generator[str]:
  """The lines of a file, skipping those that are too long, so that memory stays bounded."""
  check_file(path, 2**63)
  with path.open("rb") as file:
    complete = True
    while part := file.readline(LONGEST):
      ends = part.endswith(b"\n") or len(part) < LONGEST
      if complete and ends:
        yield part.decode("utf-8", "replace")
      complete = ends


def drop_beyond(path: str | os.PathLike, step: int) -> None:
  """Removes the unfinished lines and those of steps after `step` from a `metrics.jsonl`, if it is there."""
  path = as_path(path)
  if not path.exists():
    return
  remaining = "".join(json.dumps(line) + "\n" for line in read(path) if line["step"] <= step)
  with replacing(path) as temporary:
    temporary.write_text(remaining, encoding="utf-8")


def services(tensorboard: bool, wandb: str | Mapping[str, Any] | None) -> tuple[ModuleType | None, ModuleType | None]:
  """The modules tensorboardX and wandb, each None unless requested. UserError if one is not installed."""
  event_files = _extra("tensorboardX", "tensorboard") if tensorboard else None
  return event_files, _extra("wandb", "wandb") if wandb else None


def _extra(module: str, extra: str) -> ModuleType:
  try:
    return importlib.import_module(module)
  except ImportError as error:
    raise UserError(f"{module} is not installed. Install it with: {install(extra)}.") from error


def _wandb_id(folder: epath.Path) -> str:
  """A run id that stays the same on resumption, so that W&B continues its curves."""
  path = folder / "wandb_id.txt"
  if not path.exists():
    with replacing(path) as temporary:
      temporary.write_text(os.urandom(8).hex())
  return path.read_text().strip()
