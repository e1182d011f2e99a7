"""`jsonl:FOLDER`, `jsonl:data/*.jsonl`: a JSON object a line."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.sources import Source, stamp
from zoo.data.sources.splits import files_of_split, hash_order, take
from zoo.errors import UserError

ENDINGS = (".jsonl", ".ndjson")
_BLOCK = 2**24  # bytes that are searched for line ends at a time


def jsonl(where: str, split: str, data_dir: str | None = None) -> "JSONLines":
  """Opens .jsonl files; lines are found once, when the source is opened, and parsed when they are read."""
  files: list[Path] = []

  def lines(name: str) -> np.ndarray:
    folder, found = files_of_split(where, name, data_dir, ENDINGS)
    tables, orders = [], []
    for file in found:
      starts, ends = line_spans(folder / file)
      number = np.full(len(starts), len(files))
      tables.append(np.stack([number, np.arange(len(starts)), starts, ends], axis=1))
      orders.append(hash_order(file, len(starts)))
      files.append(folder / file)
    return np.concatenate(tables)[np.argsort(np.concatenate(orders), kind="stable")]

  table = np.concatenate(take(split, lines, f"jsonl:{where}"))
  return JSONLines(f"jsonl:{where}[{split}]", files, table)


class JSONLines(Source):
  """Lines of files, each read and parsed when asked for. `table` [lines, 4]: file, line, first byte, end."""

  def __init__(self, name: str, files: list[Path], table: np.ndarray):
    self.name, self.files, self.table, self.class_names = name, files, table, {}
    self.fingerprint = f"{name} {stamp(files)}"

  def __len__(self) -> int:
    return len(self.table)

  def __getitem__(self, index: int) -> dict[str, Any]:
    number, line, start, end = self.table[index].tolist()
    what = f"{self.files[number]} line {line + 1}"
    try:
      with open(self.files[number], "rb") as file:
        file.seek(start)
        record = json.loads(file.read(end - start))
    except OSError as error:
      raise UserError(f"{what} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
      raise UserError(f"{what} is not JSON: {error}.") from error
    if not isinstance(record, dict):
      raise UserError(f"{what} is {record!r:.60}, not a JSON object with named fields.")
    return record


def line_spans(path: Path) -> tuple[np.ndarray, np.ndarray]:
  """First bytes and ends of a file's lines. Blank lines at its end are left out."""
  try:
    size = path.stat().st_size
    with open(path, "rb") as file:
      breaks = [
        offset + np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
        for offset in range(0, size, _BLOCK)
        if (block := file.read(_BLOCK))
      ]
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
  ends = np.concatenate([*breaks, [size]]).astype(np.int64) if size else np.zeros(0, np.int64)
  starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64) if size else ends
  filled = np.flatnonzero(ends > starts)
  if not len(filled):
    raise UserError(f"{path} is empty. Remove it, or restore it.")
  return starts[: filled[-1] + 1], ends[: filled[-1] + 1]
