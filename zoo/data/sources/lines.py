"""`lines:FILE`: one text per line. `lines:train.en,train.de`: two parallel files, whose lines are pairs.

Lines that are blank in all files are ignored; one that is blank in some of them is a bad record.
"""

import re
from typing import Any, NamedTuple

import numpy as np

from zoo.data.bad_records import BadRecord
from zoo.data.sources import Source, file_fingerprint
from zoo.data.sources.encoded import decoded, utf8_file
from zoo.data.sources.files import StoragePath, read_part
from zoo.data.sources.jsonl import every_line
from zoo.data.sources.options import split_options
from zoo.data.sources.splits import files_of_split, hash_order, take
from zoo.errors import UserError

ENDINGS = (".txt", ".lines")
OPTIONS = {"columns": "a name for each file", "encoding": "the files' encoding, if it is not UTF-8"}
PAIR = ("source", "target")  # The fields of pairs, as in `text_pairs`.


class Column(NamedTuple):
  """A file and the positions of its lines."""

  path: StoragePath  # The file that is read.
  shown: StoragePath  # The name in messages.
  starts: np.ndarray  # int64 [lines]
  ends: np.ndarray  # int64 [lines]
  filled: np.ndarray  # bool [lines]


def lines(where: str, split: str, data_dir: str | None = None) -> "Lines":
  """Opens text files. Each example: `text`, or for two parallel files `source` and `target`.

  Args:
    where: a file, a pattern or a folder; or several of these that are parallel, separated by commas. Options:
      `?columns=en,de`, `encoding=cp1252`.
    split: TFDS's split syntax; `{split}` in the names is replaced by that of the split.
    data_dir: base folder of relative paths.
  """
  place, options = split_options(where, OPTIONS)
  places = re.split(r",(?![^{}]*\})", place)
  names = _names(where, places, options.get("columns"))
  groups: list[list[Column]] = []

  def rows(name: str) -> np.ndarray:
    listed = [files_of_split(one, name, data_dir, ENDINGS) for one in places]
    counts = [len(files) for _, files in listed]
    if len(set(counts)) > 1:
      raise UserError(f"lines:{where} names {' and '.join(map(str, counts))} files side by side. Give as many of each.")
    tables, orders = [], []
    for files in zip(*([(folder / file, file) for file in files] for folder, files in listed)):
      group = [_column(path, options.get("encoding")) for path, _ in files]
      _check_lengths(group)
      numbers = np.flatnonzero(np.any([column.filled for column in group], axis=0))
      if not len(numbers):
        raise UserError(f"{files[0][0]} is empty. Remove it, or restore it.")
      tables.append(np.stack([np.full(len(numbers), len(groups)), numbers], axis=1))
      orders.append(hash_order(files[0][1], len(numbers)))
      groups.append(group)
    return np.concatenate(tables)[np.argsort(np.concatenate(orders), kind="stable")]

  chosen = np.concatenate(take(split, rows, f"lines:{where}"))
  return Lines(f"lines:{where}[{split}]", groups, chosen, names)


class Lines(Source):
  """Lines of files, each read on access. `chosen` [rows, 2]: group of parallel files, line in them."""

  def __init__(self, name: str, groups: list[list[Column]], chosen: np.ndarray, names: list[str]):
    self.name, self.groups, self.chosen, self.names, self.class_names = name, groups, chosen, names, {}
    self.fingerprint = f"{name} {file_fingerprint(column.shown for group in groups for column in group)}"
    self.hint = " Two files side by side, as of translations, are lines:train.en,train.de." if len(names) == 1 else ""

  def __len__(self) -> int:
    return len(self.chosen)

  def __getitem__(self, index: int) -> dict[str, Any]:
    number, line = self.chosen[index].tolist()
    example = {}
    for name, (path, shown, starts, ends, filled) in zip(self.names, self.groups[number], strict=True):
      what, start = f"{shown} line {line + 1}", int(starts[line])
      if not filled[line]:
        raise BadRecord(f"{what} is blank, and of the files beside it that line is not.")
      try:
        content = read_part(path, start, int(ends[line]) - start)
      except OSError as error:
        raise UserError(f"{what} cannot be read: {error.strerror or error}.") from error
      example[name] = decoded(content, start, what, f"lines:{shown}").removesuffix("\r")
    return example

  def where(self, index: int) -> str:
    number, line = self.chosen[index].tolist()
    return f"{', '.join(str(column.shown) for column in self.groups[number])} line {line + 1}"


def _names(where: str, places: list[str], columns: str | None) -> list[str]:
  """The fields of an example."""
  if columns is None and len(places) <= len(PAIR):
    return ["text"] if len(places) == 1 else list(PAIR)
  names = [name.strip() for name in (columns or "").split(",") if name.strip()]
  if len(names) != len(places) or len(set(names)) < len(names):
    example = ",".join(f"text{i}" for i in range(len(places)))
    raise UserError(f"lines:{where} has {len(places)} files side by side. Name a column for each: ?columns={example}")
  return names


def _column(path: StoragePath, encoding: str | None) -> Column:
  read = utf8_file(path, encoding, f"lines:{path}")
  return Column(read, path, *every_line(read))


def _check_lengths(group: list[Column]) -> None:
  """UserError if parallel files have unequal numbers of lines."""
  if len({len(column.starts) for column in group}) > 1:
    counts = ", ".join(f"{column.shown} has {len(column.starts):,} lines" for column in group)
    raise UserError(f"{counts}: the files are not aligned. Line n of each file must match line n of the others.")
