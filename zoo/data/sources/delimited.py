"""Delimited text tables with a header line (RFC 4180), with random access to rows."""

import array
import collections
import csv
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from zoo.data.bad_records import BadRecord
from zoo.data.sources import Source, file_fingerprint
from zoo.data.sources.encoded import decoded, utf8_file
from zoo.data.sources.files import StoragePath, opened, read_part
from zoo.data.sources.options import split_options
from zoo.data.sources.splits import files_of_split, hash_order, take
from zoo.errors import UserError, shown
from zoo.progress import progress

OPTIONS = {
  "columns": "names of the columns of files without a header line",
  "delimiter": "the character between fields (tab, ;)",
  "encoding": "the files' encoding, if it is not UTF-8",
  "quotes": "none, if a quote is a character like others; double, if even tabs and line ends stand in them",
  "skip": "lines above the header",
}
NO_QUOTES = "If a quote is a character like others in this file, add ?quotes=none."
LONGEST = 2**26  # Maximum bytes of a row: an unclosed quote would turn the rest of the file into one.
_NAME = 200  # Maximum characters of a column's name.
csv.field_size_limit(LONGEST)  # By default csv refuses fields of more than 128 kB.


class Dialect(NamedTuple):
  """Delimiter, quoting and encoding of a table."""

  delimiter: str
  quotes: bool
  guessed: bool = False  # Quoting was not set explicitly.

  def options(self) -> dict[str, Any]:
    """Keywords for csv.reader."""
    quoting = csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE
    return {"delimiter": self.delimiter, "quoting": quoting, "strict": True}

  def parse(self, row: str) -> list[str]:
    """The fields of a row."""
    return next(csv.reader([row], **self.options()))


class Table(NamedTuple):
  """The rows of a file: numbers of their first lines from 0, first bytes, ends, and errors of bad ones."""

  path: StoragePath  # The file that is read.
  shown: StoragePath  # The name in messages.
  columns: list[str]
  rows: np.ndarray  # int64 [rows, 3]
  errors: dict[int, str]


def open_delimited(
  kind: str, endings: tuple[str, ...], delimiter: str, where: str, split: str, data_dir: str | None
) -> "Delimited":
  """Opens the files of a text table; rows are located once, on opening, and parsed on access."""
  place, options = split_options(where, OPTIONS)
  delimiter = {"tab": "\t", "\\t": "\t"}.get(options.get("delimiter", ""), options.get("delimiter", delimiter))
  if len(delimiter) != 1 or delimiter in '"\r\n' or not delimiter.isascii():
    raise UserError(f"{kind}:{where}: delimiter is {shown(delimiter)}. It must be a character, such as ; or tab.")
  if options.get("quotes", "none") not in ("none", "double") or not options.get("skip", "0").isdecimal():
    raise UserError(f"{kind}:{where}: quotes may be none or double, and skip is a number of lines.")
  dialect, skip = (
    Dialect(delimiter, options.get("quotes") != "none", "quotes" not in options),
    int(options.get("skip", 0)),
  )
  names = [name.strip() for name in options["columns"].split(",")] if "columns" in options else None
  tables: list[Table] = []

  def rows(name: str) -> np.ndarray:
    folder, files = files_of_split(place, name, data_dir, endings)
    found, orders = [], []
    for file in files:
      source = f"{kind}:{folder / file}"
      path = utf8_file(folder / file, options.get("encoding"), source)
      with progress(f"finding the rows of {folder / file}"):
        table = _table(path, folder / file, source, dialect, names, skip)
      _check_same(tables, table)
      count = len(table.rows)
      found.append(np.stack([np.full(count, len(tables)), np.arange(count)], axis=1))
      orders.append(hash_order(file, count))
      tables.append(table)
    return np.concatenate(found)[np.argsort(np.concatenate(orders), kind="stable")]

  chosen = np.concatenate(take(split, rows, f"{kind}:{where}"))
  return Delimited(f"{kind}:{where}[{split}]", kind, tables, chosen, dialect)


class Delimited(Source):
  """Rows of files as `{column: str}`, each read and parsed on access. `chosen` [rows, 2]: file, row in it."""

  def __init__(self, name: str, kind: str, tables: list[Table], chosen: np.ndarray, dialect: Dialect):
    self.name, self.kind, self.tables, self.chosen, self.dialect = name, kind, tables, chosen, dialect
    self.class_names = {}
    self.fingerprint = f"{name} {file_fingerprint(table.shown for table in tables)}"
    place = name.rpartition("[")[0]
    self.hint = (
      f" If there is no header line, name the columns: {place}{'&' if '?' in place else '?'}columns=text,label"
    )
    bad = {(number, row): error for number, table in enumerate(tables) for row, error in table.errors.items()}
    places = enumerate(map(tuple, chosen.tolist())) if bad else ()
    self.broken = {index: bad[place] for index, place in places if place in bad}

  def __len__(self) -> int:
    return len(self.chosen)

  def __getitem__(self, index: int) -> dict[str, Any]:
    if index in self.broken:
      raise BadRecord(self.broken[index])
    number, row = self.chosen[index].tolist()
    table, what = self.tables[number], self.where(index)
    _, start, end = table.rows[row].tolist()
    try:
      content = read_part(table.path, start, end - start)
    except OSError as error:
      raise UserError(f"{what} cannot be read: {error.strerror or error}.") from error
    text = decoded(content, start, what, f"{self.kind}:{table.shown}")
    return dict(zip(table.columns, self.dialect.parse(text), strict=True))

  def where(self, index: int) -> str:
    number, row = self.chosen[index].tolist()
    return f"{self.tables[number].shown} line {int(self.tables[number].rows[row, 0]) + 1}"


def _check_same(tables: list[Table], table: Table) -> None:
  """UserError if two files have different columns."""
  if tables and set(table.columns) != set(tables[0].columns):
    differ = set(table.columns) ^ set(tables[0].columns)
    name = min(differ)
    one, other = (table, tables[0]) if name in table.columns else (tables[0], table)
    raise UserError(
      f"{one.shown} has a column {shown(name)} that {other.shown} has not. Give the files the same columns, or take "
      "one of them."
    )


def _table(
  path: StoragePath, shown_path: StoragePath, source: str, dialect: Dialect, columns: list[str] | None, skip: int
) -> Table:
  """Finds the rows of a file; its header is the first one, unless `columns` are given."""
  numbers = array.array("q")
  errors: dict[int, str] = {}
  try:
    for line, start, end, size, error in _scan(path, shown_path, dialect, skip):
      what = f"{shown_path} line {line + 1}"
      if columns is None:
        if error is not None:
          raise UserError(f"{what}, the header: {error}")
        header = decoded(read_part(path, start, end - start), start, what, source)
        columns = _header(dialect.parse(header), what, source, dialect)
        continue
      if error is None and size != len(columns):
        error = f"it has {size} fields, and there are {len(columns)} columns ({_listed(columns)})."
        if size < len(columns):
          error += f" Column {shown(columns[size])} is missing."
        elif dialect.quotes:
          error += f" Texts with {shown(dialect.delimiter)} in them go in quotes."
      if error is not None:
        errors[len(numbers) // 3] = f"{what}: {error}"
      numbers.extend((line, start, end))
  except OSError as error:
    raise UserError(f"{shown_path} cannot be read: {error.strerror or error}.") from error
  if not numbers:
    raise UserError(
      f"{shown_path} has no row{'' if columns is None else ' below its header'}. Remove it, or restore it."
    )
  return Table(path, shown_path, columns or [], np.array(numbers, np.int64).reshape(-1, 3), errors)


def _scan(
  path: StoragePath, shown_path: StoragePath, dialect: Dialect, skip: int
) -> Iterator[tuple[int, int, int, int, str | None]]:
  """Locates each non-blank row: first line, first byte, end, number of fields, and error."""
  first, start = 0, 0  # Start of the row.
  line, position = 0, 0  # Lines and bytes read so far.

  def lines(file: Any) -> Iterator[str]:
    nonlocal line, position
    while content := file.readline(LONGEST):
      line, position = line + 1, position + len(content)
      if position - start >= LONGEST:
        opens = ", or opens a quote that is never closed" if dialect.quotes else ""
        raise UserError(f"{shown_path} line {first + 1}: the row has more than {LONGEST:,} bytes{opens}.")
      yield (content.removeprefix(b"\xef\xbb\xbf") if line == 1 else content).decode("latin-1")

  with opened(path) as file:
    feed = lines(file)
    for _ in range(skip):
      next(feed, None)
    reader = csv.reader(feed, **dialect.options())
    while True:
      first, start, error, size = line, position, None, 0
      try:
        fields = next(reader)
        size = len(fields)
        # Texts of GLUE and others begin or end with literal quotes, which would merge rows.
        if dialect.guessed and dialect.delimiter == "\t" and line > first + 1 and any("\t" in text for text in fields):
          error = f"a quote is closed in line {line} only, behind tabs. {NO_QUOTES} If that is meant, ?quotes=double."
      except StopIteration:
        return
      except csv.Error as problem:
        if "end of data" in str(problem):  # The rest of the file would be one row.
          raise UserError(f"{shown_path} line {first + 1} opens a quote that is never closed. {NO_QUOTES}") from problem
        error = _way_out(str(problem), first, line, dialect)
      if size or error is not None:
        yield first, start, position, size, error


def _way_out(problem: str, first: int, end: int, dialect: Dialect) -> str:
  if "new-line" in problem:
    return "it has a carriage return in a field. Convert the file's line ends, or put the field in quotes."
  if not dialect.quotes:
    return f"{problem}."
  through = f" up to line {end}" if end > first + 1 else ""
  return f"its quotes do not match{through} ({problem}). Double those within quotes. {NO_QUOTES}"


def _header(names: list[str], what: str, source: str, dialect: Dialect) -> list[str]:
  """The column names; UserError if the header is implausible."""
  names = [name.strip() for name in names]
  if names[0] == "" and len(names) > 1:
    names[0] = "Unnamed: 0"  # pandas' column of row numbers, as written and as read.
  way_out = f"If the file has no header line, name its columns: {source}?columns=text,label"
  if len(names) == 1:
    other = next((mark for mark in ",;\t|" if mark != dialect.delimiter and mark in names[0]), None)
    if other is not None:
      mark = "tab" if other == "\t" else other
      raise UserError(f"{what}: the header {shown(names[0])} is one column. Write {source}?delimiter={mark}")
  counts = collections.Counter(names)
  for name in names:
    if not name or counts[name] > 1 or len(name) > _NAME or _is_number(name):
      problem = (
        "no name"
        if not name
        else f"{shown(name)}, "
        + ("a number" if _is_number(name) else "which is very long" if len(name) > _NAME else "twice")
      )
      raise UserError(f"{what} is not a header: one of its {len(names)} columns has {problem}. {way_out}")
  return names


def _is_number(text: str) -> bool:
  try:
    float(text)
  except ValueError:
    return False
  return True


def _listed(columns: list[str]) -> str:
  return ", ".join(columns[:10]) + (", ..." if len(columns) > 10 else "")
