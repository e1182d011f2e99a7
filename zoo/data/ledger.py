"""Log of the bad records that a run has skipped, identical after any number of resumptions."""

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from zoo.data.bad_records import SHOWN, BadRecord, too_many
from zoo.errors import UserError
from zoo.storage import as_path, is_remote, replacing

FILE = "bad_records.jsonl"


class Ledger:
  """Writes `folder/bad_records.jsonl`, from the first process only: a line per bad record when it first occurs.

      {"step": 40, "data": "webdataset:shards/*.tar[train]", "record": 1207, "error": "shards/07.tar, key '0012' ..."}

  Records skipped when data were opened, as by text pipelines and evaluators, have step 0. A run that resumes at step k
  drops the lines of later steps and writes them again, so that the file reads as one uninterrupted run.

  Args:
    folder: of the run, here or in a bucket.
    records: the training records, a `zoo.data.pipeline.Records`.
    step: number of steps done when the run starts or resumes.
    opened: name -> errors of skipped records of other data, e.g. of evaluators.
    note: called at the first bad record, with the path of the list.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    records: Any,
    step: int,
    opened: Mapping[str, Sequence[str]] | None = None,
    *,
    note: Callable[[str], Any] | None = None,
  ):
    self.path, self.records, self.skips = as_path(folder) / FILE, records, records.policy.skips
    self._note = note
    self._pending: list[tuple[int, int]] = []
    self._met: set[int] = set()
    self._counts: Counter[int] = Counter()  # Per part, keyed by its first record: the number of bad records,
    self._errors: dict[int, list[str]] = {}  # and the errors of the first few.
    left_out = {records.name: records.bad, **(opened or {})}
    lines = [_line(0, name, None, error) for name, errors in left_out.items() for error in errors]
    for line in _read_lines(self.path):
      if line["step"] <= step:
        lines.append(line)
        if line["data"] == records.name and line["record"] < len(records):
          self._take(line["record"], line["error"])
    self._texts = [json.dumps(line) + "\n" for line in lines]
    self._unsent = False
    if jax.process_index() == 0 and (lines or self.path.exists()):
      self.path.parent.mkdir(parents=True, exist_ok=True)
      self._write_whole()

  def met(self, step: int, records: np.ndarray) -> None:
    """Queues the bad records, int [n], of this host's part of batch `step`, counted from 0."""
    self._pending += [(step + 1, int(record)) for record in records]

  def look(self, *, saves: bool = True) -> dict[str, int]:
    """Writes the queued records of all hosts, and returns the number so far, {"bad_records": n}, if any is skipped.

    To be called by all hosts at the same step.

    Args:
      saves: whether a checkpoint comes next: objects in buckets cannot grow, so the full list is rewritten only then.

    Raises:
      UserError: more are bad than may be.
    """
    if not self.skips:
      return {}
    pending, self._pending = _on_all_hosts(self._pending), []
    first = {record: step for step, record in sorted(pending, reverse=True) if record not in self._met}
    order = sorted(first, key=lambda record: (first[record], record))
    is_first = jax.process_index() == 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Other hosts need only those that a message names.
      errors = list(pool.map(self._problem, order if is_first else order[:SHOWN]))
    for record, error in itertools.zip_longest(order, errors, fillvalue=""):
      self._take(int(record), error)
    if errors and self._note is not None:
      self._note(f"Bad records are skipped, and listed in {self.path}. The first: {errors[0]}")
      self._note = None
    if is_first:
      self._add([_line(first[record], self.records.name, record, error) for record, error in zip(order, errors)], saves)
    for start, count in self._counts.items():
      part, _ = self.records.part_of(start)
      if count > part.policy.allowed(len(part)):
        raise UserError(too_many(self._errors[start], count, part.name, len(part), part.policy))
    return {"bad_records": len(self.records.bad) + len(self._met)}

  def _take(self, record: int, error: str) -> None:
    _, start = self.records.part_of(record)
    self._met.add(record)
    self._counts[start] += 1
    if len(first_errors := self._errors.setdefault(start, [])) < SHOWN:
      first_errors.append(error)

  def _problem(self, record: int) -> str:
    try:
      self.records.example(record)
    except BadRecord as error:
      return str(error)
    return f"{self.records.name}, record {record} could not be read at first, but could when it was read again."

  def _add(self, lines: list[dict[str, Any]], saves: bool) -> None:
    texts = [json.dumps(line) + "\n" for line in lines]
    if is_remote(self.path):
      self._texts += texts
      self._unsent |= bool(texts)
      if saves and self._unsent:
        self._write_whole()
    elif texts:
      self.path.parent.mkdir(parents=True, exist_ok=True)
      with open(self.path, "a", encoding="utf-8") as file:
        file.write("".join(texts))

  def _write_whole(self) -> None:
    with replacing(self.path) as temporary:
      temporary.write_text("".join(self._texts), encoding="utf-8")
    self._unsent = False


def _line(step: int, data: str, record: int | None, error: str) -> dict[str, Any]:
  return {"step": step, "data": data, "record": record, "error": error}


def _read_lines(path: Any) -> list[dict[str, Any]]:
  """The valid lines of the file, if it exists."""
  lines = []
  for text in path.read_bytes().splitlines() if path.exists() else ():
    try:
      line = json.loads(text)
      if isinstance(line["step"], int) and isinstance(line["record"], int) and isinstance(line["error"], str):
        lines.append(line)
    except (ValueError, KeyError, TypeError, RecursionError):
      continue
  return lines


def _on_all_hosts(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
  if jax.process_count() == 1:
    return pairs
  sizes = multihost_utils.process_allgather(np.int32(len(pairs)))
  padded = np.full((int(sizes.max()), 2), -1, np.int32)
  padded[: len(pairs)] = np.array(pairs, np.int32).reshape(-1, 2)
  rows = multihost_utils.process_allgather(padded).reshape(-1, 2)
  return [(step, record) for step, record in rows.tolist() if record >= 0]
