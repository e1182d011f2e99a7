"""`parquet:FOLDER`, `parquet:data/*.parquet`: Parquet tables, read by row group on access.

Rows are in the order of the files, also in a slice such as `train[:90%]`, which is chosen by hash; training takes the
row groups in random order, and the rows of a few of them in random order.
"""

import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from zoo.data.bad_records import BadRecord
from zoo.data.sources import Source, file_fingerprint
from zoo.data.sources.arrow import check_schema, class_names_in, example_of, features_in
from zoo.data.sources.files import StoragePath, seekable
from zoo.data.sources.options import split_options
from zoo.data.sources.splits import files_of_split, hash_order, take
from zoo.errors import UserError, did_you_mean, shown
from zoo.storage import is_remote

ENDINGS = (".parquet", ".parq", ".pq")
OPTIONS = {"columns": "names of the columns that are read"}
HELD = 2**28  # Bytes of decoded row groups to cache; at least one is cached.


class File(NamedTuple):
  """A Parquet file: the columns to read, rows and bytes of its row groups, and features in its schema."""

  path: StoragePath
  columns: list[str]
  rows: np.ndarray  # int64 [row groups]
  size: int  # Bytes of the largest row group, decoded.
  about: Any  # pyarrow's FileMetaData
  features: dict[str, Any]


def parquet(where: str, split: str, data_dir: str | None = None) -> "Parquet":
  """Opens Parquet files, reading their footers. Each example: column -> value, lists and structs as in Python."""
  place, options = split_options(where, OPTIONS)
  columns = [name.strip() for name in options["columns"].split(",")] if "columns" in options else None
  files: list[File] = []

  def rows(name: str) -> np.ndarray:
    folder, names = files_of_split(place, name, data_dir, ENDINGS)
    return rows_of(files, [(folder / file, file) for file in names], columns)

  chosen = in_file_order(take(split, rows, f"parquet:{where}"))
  return Parquet(f"parquet:{where}[{split}]", files, chosen)


def rows_of(files: list[File], paths: list[tuple[StoragePath, str]], columns: list[str] | None) -> np.ndarray:
  """Adds files to `files`: their rows [rows, 2], file and row in it, in the order of a hash."""
  tables, orders = [], []
  for path, name in paths:
    file = _opened(path, columns)
    check_schema(file.columns, path, files[0].columns if files else file.columns, files[0].path if files else path)
    count = int(file.rows.sum())
    tables.append(np.stack([np.full(count, len(files)), np.arange(count)], axis=1))
    orders.append(hash_order(name, count))
    files.append(file)
  return np.concatenate(tables)[np.argsort(np.concatenate(orders), kind="stable")]


def in_file_order(parts: list[np.ndarray]) -> np.ndarray:
  """Rows [rows, 2] of the slices of a split, each in the order of its files."""
  return np.concatenate([part[np.lexsort((part[:, 1], part[:, 0]))] for part in parts])


class Parquet(Source):
  """Rows of Parquet files. `chosen` [rows, 2]: file, row in it."""

  _tables: OrderedDict[tuple[int, int], Any]
  _lock: threading.Lock

  def __init__(self, name: str, files: list[File], chosen: np.ndarray):
    self.name, self.files, self.chosen = name, files, chosen
    self.fingerprint = f"{name} {file_fingerprint(file.path for file in files)}"
    self.class_names = class_names_in({name: feature for file in files for name, feature in file.features.items()})
    self._ends = [np.cumsum(file.rows) for file in files]
    groups = np.zeros(len(chosen), np.int64)
    for number, ends in enumerate(self._ends):
      of_file = chosen[:, 0] == number
      groups[of_file] = number * 2**32 + np.searchsorted(ends, chosen[of_file, 1], side="right")
    self.blocks = self._groups = groups
    held = max(1, HELD // max(1, max(file.size for file in files)))
    self.lanes = max(1, held // 2) if any(is_remote(file.path) for file in files) else 1
    self.window = max(1, held // 2 // self.lanes)
    self._held = max(2, 2 * self.window * self.lanes)  # Prefetched batches reach into the next.
    self.__setstate__({})

  def __getstate__(self) -> dict[str, Any]:  # Not shared with worker processes.
    return {name: value for name, value in vars(self).items() if name not in ("_tables", "_lock")}

  def __setstate__(self, state: dict[str, Any]) -> None:
    vars(self).update(state, _tables=OrderedDict(), _lock=threading.Lock())

  def __len__(self) -> int:
    return len(self.chosen)

  def __getitem__(self, index: int) -> dict[str, Any]:
    number, row = self.chosen[index].tolist()
    group = int(self._groups[index]) - number * 2**32
    first = int(self._ends[number][group - 1]) if group else 0
    return example_of(self._group(number, group), row - first, self.where(index))

  def where(self, index: int) -> str:
    number, row = self.chosen[index].tolist()
    return f"{self.files[number].path} row {row}"

  def _group(self, number: int, group: int) -> Any:
    """A decoded row group, cached or read now."""
    import pyarrow
    import pyarrow.parquet

    with self._lock:
      key = number, group
      if key in self._tables:
        self._tables.move_to_end(key)
        return self._tables[key]
      path, columns, _, _, about, _ = self.files[number]
      try:
        with seekable(path) as file:
          table = pyarrow.parquet.ParquetFile(file, metadata=about).read_row_group(group, columns=columns)
          table = table.combine_chunks()
          if len(table) != self.files[number].rows[group]:
            raise ValueError(f"it has {len(table)} rows, not the {self.files[number].rows[group]} that the file says")
      except UserError:
        raise
      except (pyarrow.ArrowException, OSError, ValueError) as error:
        lost = isinstance(error, FileNotFoundError)
        raise (UserError if lost else BadRecord)(f"{path}: row group {group} cannot be read ({error}).") from error
      self._tables[key] = table
      while len(self._tables) > self._held:
        self._tables.popitem(last=False)
      return table


def _opened(path: StoragePath, columns: list[str] | None) -> File:
  import pyarrow
  import pyarrow.parquet

  try:
    with seekable(path) as content:
      file = pyarrow.parquet.ParquetFile(content)
      about, schema = file.metadata, file.schema_arrow
      groups = [about.row_group(number) for number in range(about.num_row_groups)]
      rows, size = [group.num_rows for group in groups], max((group.total_byte_size for group in groups), default=0)
  except UserError:
    raise
  except (pyarrow.ArrowException, OSError, ValueError) as error:
    raise UserError(f"{path} is not a complete Parquet file ({error}). Fetch it again.") from error
  for name in columns or ():
    if name not in schema.names:
      near = did_you_mean(name, schema.names)
      raise UserError(f"{path} has no column {shown(name)}.{near} It has: {', '.join(schema.names)}.")
  return File(path, columns or schema.names, np.array(rows, np.int64), size, about, features_in(schema))
