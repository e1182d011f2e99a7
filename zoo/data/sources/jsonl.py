"""`jsonl:FOLDER`, `jsonl:data/*.jsonl`: one JSON object per line, in UTF-8. Blank lines are ignored."""

from typing import Any

import numpy as np

from zoo.data.bad_records import BadRecord
from zoo.data.sources import Source, file_fingerprint, json_object
from zoo.data.sources.copies import nearby
from zoo.data.sources.files import StoragePath, opened, read_part
from zoo.data.sources.splits import files_of_split, hash_order, take
from zoo.errors import UserError
from zoo.progress import progress

ENDINGS = (".jsonl", ".ndjson")
_BLOCK = 2**24  # bytes searched for line ends at a time
_LOOK = 2**20  # bytes of a file searched for its first line
_SPACE = np.frombuffer(b" \t\r\v\f", np.uint8)


def jsonl(where: str, split: str, data_dir: str | None = None) -> "JSONLines":
  """Opens .jsonl files; lines are located once, on opening, and parsed on access."""
  files: list[StoragePath] = []
  places: list[StoragePath] = []  # Remote files are read from local copies.

  def lines(name: str) -> np.ndarray:
    folder, names = files_of_split(where, name, data_dir, ENDINGS)
    tables, orders = [], []
    for file in names:
      places.append(nearby(folder / file))
      lines_of_file, starts, ends = line_spans(places[-1])
      tables.append(np.stack([np.full(len(starts), len(files)), lines_of_file, starts, ends], axis=1))
      orders.append(hash_order(file, len(starts)))
      files.append(folder / file)
    return np.concatenate(tables)[np.argsort(np.concatenate(orders), kind="stable")]

  table = np.concatenate(take(split, lines, f"jsonl:{where}"))
  return JSONLines(f"jsonl:{where}[{split}]", files, table, places)


class JSONLines(Source):
  """Lines of files, each read and parsed on access. `table` [lines, 4]: file, line, first byte, end."""

  def __init__(self, name: str, files: list[StoragePath], table: np.ndarray, places: list[StoragePath]):
    self.name, self.files, self.table, self.places, self.class_names = name, files, table, places, {}
    self.fingerprint = f"{name} {file_fingerprint(files)}"

  def __len__(self) -> int:
    return len(self.table)

  def __getitem__(self, index: int) -> dict[str, Any]:
    number, line, start, end = self.table[index].tolist()
    what = self.where(index)
    try:
      content = read_part(self.places[number], start, end - start)
      return json_object(content, what)
    except OSError as error:
      raise UserError(f"{what} cannot be read: {error.strerror or error}.") from error
    except BadRecord as error:
      # Lines are read in random order: a file of another format is detected by its first one.
      first = first_line(self.places[number])
      if first is None or first[0] == line or is_object(first[1]):
        raise
      raise BadRecord(
        f"{error} Nor is line {first[0] + 1}, the first. A JSON Lines file has one JSON object per line."
      ) from error

  def where(self, index: int) -> str:
    number, line, *_ = self.table[index].tolist()
    return f"{self.files[number]} line {line + 1}"


def first_line(path: StoragePath) -> tuple[int, bytes] | None:
  """Index and content of a file's first non-blank line; None if none ends within _LOOK bytes."""
  content = read_part(path, 0, _LOOK)
  lines = content.split(b"\n")[: None if len(content) < _LOOK else -1]
  return next(((number, line) for number, line in enumerate(lines) if line.strip()), None)


def is_object(content: bytes) -> bool:
  """Whether a line is a JSON object."""
  try:
    json_object(content, "")
  except BadRecord:
    return False
  return True


def line_spans(path: StoragePath) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Indices, first bytes and ends (the byte after the last) of a file's non-blank lines: int64 [lines] each.

  Raises:
    UserError: the file has none, or cannot be read.
  """
  starts, ends, filled = every_line(path)
  if not filled.any():
    raise UserError(f"{path} is empty. Remove it, or restore it.")
  return np.flatnonzero(filled), starts[filled], ends[filled]


def every_line(path: StoragePath) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """First bytes and ends of all lines of a file, and whether they are not blank; arrays [0] for an empty file."""
  breaks, firsts, size, begins = [], [], 0, True
  try:
    with opened(path) as file, progress(f"finding the lines of {path}", None, "MB") as advance:
      while block := file.read(_BLOCK):
        advance(len(block) / 1e6)
        content = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(content == ord("\n"))
        starts = np.concatenate([[0] if begins else [], ends + 1]).astype(np.int64)
        begins = len(starts) > 0 and starts[-1] == len(content)  # The next line begins with the next block.
        firsts.append(content[starts[:-1] if begins else starts])
        breaks.append(size + ends)
        size += len(content)
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
  ends = np.concatenate([*breaks, [size]]).astype(np.int64)
  starts = np.concatenate([[0], ends[:-1] + 1])
  if starts[-1] == size:  # A trailing line break does not start another line.
    starts, ends = starts[:-1], ends[:-1]
  filled = ends > starts
  # An object begins with a brace; only a line that begins with white space may be blank.
  first = np.concatenate([*firsts, np.zeros(1, np.uint8)])[: len(starts)]
  for line in np.flatnonzero(filled & np.isin(first, _SPACE)):
    filled[line] = read_part(path, int(starts[line]), int(ends[line] - starts[line])).strip() != b""
  return starts, ends, filled
