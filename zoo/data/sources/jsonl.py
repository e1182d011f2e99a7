"""`jsonl:FOLDER`, `jsonl:data/*.jsonl`: a JSON object a line, in UTF-8. Blank lines are none."""

from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.sources import Source, json_object, stamp
from zoo.data.sources.splits import files_of_split, hash_order, take
from zoo.errors import UserError

ENDINGS = (".jsonl", ".ndjson")
_BLOCK = 2**24  # bytes that are searched for line ends at a time
_SPACE = np.frombuffer(b" \t\r\v\f", np.uint8)


def jsonl(where: str, split: str, data_dir: str | None = None) -> "JSONLines":
  """Opens .jsonl files; lines are found once, when the source is opened, and parsed when they are read."""
  files: list[Path] = []

  def lines(name: str) -> np.ndarray:
    folder, found = files_of_split(where, name, data_dir, ENDINGS)
    tables, orders = [], []
    for file in found:
      numbers, starts, ends = line_spans(folder / file)
      tables.append(np.stack([np.full(len(starts), len(files)), numbers, starts, ends], axis=1))
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
    number, _, start, end = self.table[index].tolist()
    what = self.where(index)
    try:
      with open(self.files[number], "rb") as file:
        file.seek(start)
        content = file.read(end - start)
    except OSError as error:
      raise UserError(f"{what} cannot be read: {error.strerror or error}.") from error
    return json_object(content, what)

  def where(self, index: int) -> str:
    number, line, *_ = self.table[index].tolist()
    return f"{self.files[number]} line {line + 1}"


def line_spans(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Numbers from 0, first bytes and ends of a file's lines, less those that hold nothing but white space."""
  try:
    size = path.stat().st_size
    content = np.memmap(path, np.uint8, "r") if size else np.zeros(0, np.uint8)
    breaks = [
      offset + np.flatnonzero(content[offset : offset + _BLOCK] == ord("\n")) for offset in range(0, size, _BLOCK)
    ]
  except (OSError, ValueError) as error:  # numpy's, of a file that became shorter.
    raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
  ends = np.concatenate([*breaks, [size]]).astype(np.int64)
  starts = np.concatenate([[0], ends[:-1] + 1])
  filled = ends > starts
  # An object begins with a brace; only a line that begins with white space may be blank.
  for line in np.flatnonzero(filled & np.isin(content[np.minimum(starts, size - 1)] if size else filled, _SPACE)):
    filled[line] = content[starts[line] : ends[line]].tobytes().strip() != b""
  if not filled.any():
    raise UserError(f"{path} is empty. Remove it, or restore it.")
  return np.flatnonzero(filled), starts[filled], ends[filled]
