"""Sources of raw examples.

`tfds:NAME`, `hf:FOLDER`, `text:GLOB`, `lines:FILE`, `jsonl:GLOB`, `csv:GLOB`, `tsv:GLOB`, `parquet:GLOB`,
`images:FOLDER`, `coco:FOLDER`, `audio:FOLDER`, `webdataset:GLOB.tar`.

One file per kind of source. Every source is random access and reads records on access.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from zoo.config import registry
from zoo.data.bad_records import BadRecord
from zoo.data.sources.files import read_part, status
from zoo.errors import UserError, shown
from zoo.storage import is_remote

# Permanent errors of a path, on every host and in every run.
NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


class Source:
  """Random access to raw examples: `len(source)`, `source[i] -> dict` (images as encoded bytes).

  Attributes:
    name: its name in messages, e.g. `tfds:emoji[train]`.
    fingerprint: a str that changes when the examples may have changed; None if unknown (then nothing is cached).
    class_names: field -> names of its classes, if the source knows them.
    broken: record -> its error, for records known to be bad before they are read.
    bad: errors of the records that were skipped when the source was opened.
    hint: appended to the message for a missing field.
    blocks: int [records], the block of each record, if the source reads many records of a block at once; None: its
      records are read one by one.
    window: number of blocks whose records may be read in any order.
    reads_ahead: whether `fetch` does something.
    lanes: number of concurrent readers, each with `window` blocks; see `zoo.data.block_order`.
  """

  name: str
  hint: str = ""
  blocks: np.ndarray | None = None
  window: int = 1
  lanes: int = 1
  reads_ahead: bool = False
  fingerprint: str | None = None
  class_names: dict[str, list[str]]
  broken: Mapping[int, str] = {}
  bad: tuple[str, ...] = ()

  def __len__(self) -> int:
    raise NotImplementedError

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Reads a record. BadRecord if this one is unreadable, UserError if all are."""
    raise NotImplementedError

  def __iter__(self) -> Iterator[dict[str, Any]]:
    """All examples in order. Python's default, by index until an IndexError, would depend on errors of readers."""
    return (self[index] for index in range(len(self)))

  def fetch(self, block: int) -> None:
    """Called some batches before the records of a block are read."""

  def where(self, index: int) -> str:
    """A record's name in messages: its file, and its key or position in it."""
    return f"{self.name}, record {index}"


def open_source(source: str, split: str = "train", data_dir: str | None = None) -> Source:
  """Opens `KIND:WHERE`, e.g. `open_source("tfds:emoji/style", "train[:90%]")`.

  Args:
    source: kind and location. Kinds are the files of zoo/data/sources.
    split: TFDS's split syntax: `train`, `train[:90%]`, `train[10:20]+test`. See zoo/data/sources/splits.py.
    data_dir: for `tfds` the folder of prepared datasets; else the folder that relative paths start from.

  Raises:
    UserError: the source is not of the form KIND:WHERE, of an unknown kind, or not there.
  """
  kind, colon, where = str(source).partition(":")
  if not colon or not where:
    raise UserError(f"source is '{source}'. It must be KIND:WHERE, e.g. tfds:emoji, text:notes/*.txt, images:photos.")
  return registry.lookup("data.sources", kind)(where, split, data_dir)


def file_fingerprint(files: Iterable[str | os.PathLike]) -> str:
  """A fingerprint of files: their paths, sizes and modification times."""
  digest, files = hashlib.blake2b(digest_size=16), list(files)
  with ThreadPoolExecutor(os.cpu_count()) as pool:
    states = pool.map(status, files) if any(map(is_remote, files)) else map(status, files)
  for file, (size, changed) in zip(files, states, strict=True):
    name = os.fspath(file) if is_remote(file) else os.path.abspath(file)
    digest.update(os.fsencode(name) + f"\0{size}\0{changed}\0".encode())
  return digest.hexdigest()


def read_file(path: str | os.PathLike) -> bytes:
  """The bytes of a file.

  Raises:
    BadRecord: it is missing, not a file, or empty.
    UserError: it cannot be read now, or by this user.
  """
  try:
    content = read_part(path)
  except ValueError as error:  # An invalid file name.
    raise BadRecord(f"{shown(path)} cannot be read: {error}.") from error
  except OSError as error:
    kind = BadRecord if error.errno in NOWHERE else UserError
    raise kind(f"{path} cannot be read: {error.strerror or error}.") from error
  if not content.strip():
    raise BadRecord(f"{path} is empty. Remove it, or restore it.")
  return content


def json_object(content: bytes, what: str) -> dict[str, Any]:
  """Parses a JSON object in UTF-8; BadRecord, whose message begins with `what`, if it is anything else."""
  fields = json_value(content, what)
  if not isinstance(fields, dict):
    raise BadRecord(f"{what} is {shown(fields, 60)}, not a JSON object with named fields.")
  return fields


def json_value(content: bytes, what: str) -> Any:
  """Parses JSON in UTF-8; BadRecord, whose message begins with `what`, if it is invalid or holds a lone surrogate."""
  try:
    value = json.loads(content.decode("utf-8-sig"))
    if b"\\u" in content:  # Only an escape can be a lone surrogate.
      json.dumps(value, ensure_ascii=False).encode()
  except RecursionError as error:
    raise BadRecord(f"{what} is JSON that is nested too deeply.") from error
  except UnicodeEncodeError as error:
    half = error.object[error.start]
    raise BadRecord(f"{what} holds {half!a}, a lone surrogate.") from error
  except json.JSONDecodeError as error:
    # For a single line `what` has its number: "line 1" within that line would be a second one.
    mistake = error if b"\n" in content.strip() else f"{error.msg.removesuffix(' at')} at column {error.colno}"
    raise BadRecord(f"{what} is not JSON: {mistake}.") from error
  except ValueError as error:
    raise BadRecord(f"{what} is not JSON: {error}.") from error
  return value
