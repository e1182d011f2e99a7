"""Arrow files (.arrow) as a source, memory-mapped, so that only accessed rows are read from disk."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from zoo.data.bad_records import BadRecord
from zoo.data.sources import Source, file_fingerprint
from zoo.data.sources.arrow import check_schema, class_names_in, example_of, features_in
from zoo.data.sources.copies import nearby
from zoo.data.sources.files import StoragePath, read_part, status
from zoo.data.sources.splits import hash_order
from zoo.errors import UserError
from zoo.storage import is_remote

_END = b"\xff\xff\xff\xff\0\0\0\0"  # End marker of a stream; a file truncated between two batches lacks only this.


class ArrowFile(NamedTuple):
  """An open Arrow file: its record batches and their last rows."""

  path: StoragePath
  batches: list[Any]
  ends: np.ndarray  # int64 [batches]
  columns: list[str]
  features: dict[str, Any]


def open_arrow(path: StoragePath) -> ArrowFile:
  """Memory-maps a file in Arrow's streaming or file format, for a remote one a local copy.

  Raises:
    UserError: it is neither, or truncated.
  """
  import pyarrow

  place = nearby(path)
  if is_remote(place):
    raise UserError(f"{path} is larger than copies in the cache may be. Raise ZOO_CACHE_LIMIT (GB), or copy it.")
  try:
    size, head = status(place)[0], read_part(place, 0, 6)
    mapped = pyarrow.memory_map(str(place))
    if head == b"ARROW1":
      file = pyarrow.ipc.open_file(mapped)
      schema, batches = file.schema, [file.get_batch(number) for number in range(file.num_record_batches)]
    else:
      stream = pyarrow.ipc.open_stream(mapped)
      schema, batches = stream.schema, list(stream)
      if read_part(place, max(0, size - 8)) != _END:
        raise ValueError("it has no end")
    for batch in batches:
      batch.validate()
  except (pyarrow.ArrowException, OSError, ValueError) as error:
    raise UserError(f"{path} is not a complete Arrow file ({error}). Save it again.") from error
  ends = np.cumsum([batch.num_rows for batch in batches], dtype=np.int64)
  return ArrowFile(path, batches, ends, schema.names, features_in(schema))


def arrow_rows(files: list[ArrowFile], paths: list[StoragePath]) -> np.ndarray:
  """Opens files and adds them to `files`: their rows [rows, 2], file and row in it, in the order of a hash."""
  tables, orders = [], []
  for path in paths:
    file = open_arrow(path)
    check_schema(file.columns, path, files[0].columns if files else file.columns, files[0].path if files else path)
    count = int(file.ends[-1]) if len(file.ends) else 0
    tables.append(np.stack([np.full(count, len(files)), np.arange(count)], axis=1))
    orders.append(hash_order(path.name, count))
    files.append(file)
  return np.concatenate(tables)[np.argsort(np.concatenate(orders), kind="stable")]


class ArrowFiles(Source):
  """Rows of Arrow files. `chosen` [rows, 2]: file, row in it; `features`: of datasets, over those of schemas."""

  def __init__(self, name: str, files: list[ArrowFile], chosen: np.ndarray, features: Mapping[str, Any]):
    self.name, self.files, self.chosen, self.features = name, files, chosen, features
    self.fingerprint = f"{name} {file_fingerprint(file.path for file in files)}"
    of_files = {name: feature for file in files for name, feature in file.features.items()}
    self.class_names = class_names_in({**of_files, **features})

  def __reduce__(self) -> tuple:  # Unpickling maps the files again.
    return _opened_again, (self.name, [file.path for file in self.files], self.chosen, self.features)

  def __len__(self) -> int:
    return len(self.chosen)

  def __getitem__(self, index: int) -> dict[str, Any]:
    number, row = self.chosen[index].tolist()
    file, what = self.files[number], self.where(index)
    batch = int(np.searchsorted(file.ends, row, side="right"))
    one = file.batches[batch].slice(row - (int(file.ends[batch - 1]) if batch else 0), 1)
    try:
      one.validate(full=True)  # Corrupt offsets could point anywhere.
    except ValueError as error:
      raise BadRecord(f"{what} is damaged ({error}).") from error
    return example_of(one, 0, what)

  def where(self, index: int) -> str:
    number, row = self.chosen[index].tolist()
    return f"{self.files[number].path} row {row}"


def _opened_again(name: str, paths: list[StoragePath], chosen: np.ndarray, features: Mapping[str, Any]) -> ArrowFiles:
  return ArrowFiles(name, [open_arrow(path) for path in paths], chosen, features)
