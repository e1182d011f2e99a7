"""Which bad records a run has passed over: counted, and listed in its folder, the same ones however often it stops."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from zoo.atomic import replacing
from zoo.data.bad_records import BadRecord, check_share
from zoo.places import place

FILE = "bad_records.jsonl"


class Ledger:
  """Writes `folder/bad_records.jsonl`, from the first process only: a line for each bad record, when it is met first.

      {"step": 40, "data": "webdataset:shards/*.tar[train]", "record": 1207, "error": "shards/07.tar, key '0012' ..."}

  Those that were left out when data were opened, as text pipelines and evaluators do, are of step 0. A run that goes on
  at step k drops the lines of later steps and meets the records again, so that the file reads as one uninterrupted run.

  Args:
    folder: of the run, here or in a bucket.
    records: what the run trains on, a `zoo.data.pipeline.Records`.
    step: where the run starts or goes on.
    opened: name -> what is wrong with the records of other data, e.g. of evaluators, that were left out.
  """

  def __init__(
    self, folder: str | os.PathLike, records: Any, step: int, opened: Mapping[str, Sequence[str]] | None = None
  ):
    self.path, self.records = place(folder) / FILE, records
    self.skips = records.policy.skips
    self.lines: list[dict[str, Any]] = [
      {"step": 0, "data": name, "record": None, "error": error}
      for name, errors in {records.name: records.bad, **(opened or {})}.items()
      for error in errors
    ]
    self.lines += [line for line in _read(self.path) if line["record"] is not None and line["step"] <= step]
    self.errors: dict[int, str] = {line["record"]: line["error"] for line in self.lines if self._is_met(line)}
    self._pending: list[tuple[int, int]] = []
    if self.lines or self.path.exists():
      self._write()

  def met(self, step: int, records: np.ndarray) -> None:
    """Takes note of the bad records, int [n], of this host's part of batch `step`, counted from 0."""
    self._pending += [(step + 1, int(record)) for record in records]

  def look(self) -> dict[str, int]:
    """Lists what was met since, on all hosts, and returns the number so far, {"bad_records": n}, where any is skipped.

    To be called by all hosts at the same step.

    Raises:
      UserError: more are bad than may be.
    """
    if not self.skips:
      return {}
    met = _on_all_hosts(self._pending)
    self._pending = []
    first = {record: step for step, record in sorted(met, reverse=True) if record not in self.errors}
    for record, step in sorted(first.items(), key=lambda item: item[::-1]):
      self.errors[record] = _problem(self.records, record)
      self.lines.append({"step": step, "data": self.records.name, "record": record, "error": self.errors[record]})
    if first:
      self._write()
      check_share(self.records, self.errors)
    return {"bad_records": len(self.records.bad) + len(self.errors)}

  def _is_met(self, line: Mapping[str, Any]) -> bool:
    """Whether a line is of the data that the run has now, and of a record that still is there."""
    return line["record"] is not None and line["data"] == self.records.name and line["record"] < len(self.records)

  def _write(self) -> None:
    if jax.process_index() == 0:
      self.path.parent.mkdir(parents=True, exist_ok=True)
      with replacing(self.path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")


def _read(path: Any) -> list[dict[str, Any]]:
  """The lines of the file, if it is there; what is no line of it is passed over."""
  lines = []
  for text in path.read_bytes().splitlines() if path.exists() else ():
    try:
      line = json.loads(text)
      if isinstance(line["step"], int) and isinstance(line["record"], int) and isinstance(line["error"], str):
        lines.append(line)
    except (ValueError, KeyError, TypeError, RecursionError):
      continue
  return lines


def _problem(records: Any, record: int) -> str:
  try:
    records.example(record)
  except BadRecord as error:
    return str(error)
  return f"{records.name}, record {record} could not be read; when it was looked at again, it could."


def _on_all_hosts(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
  if jax.process_count() == 1:
    return pairs
  sizes = multihost_utils.process_allgather(np.int32(len(pairs)))
  mine = np.full((int(sizes.max()), 2), -1, np.int32)
  mine[: len(pairs)] = np.array(pairs, np.int32).reshape(-1, 2)
  rows = multihost_utils.process_allgather(mine).reshape(-1, 2)
  return [(step, record) for step, record in rows.tolist() if record >= 0]
