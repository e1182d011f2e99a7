"""Where raw examples come from: `tfds:NAME`, `text:GLOB`, `jsonl:GLOB`, `images:FOLDER`, `webdataset:GLOB.tar`.

One file per kind of source. Every source is random access and reads a record when it is asked for it.
"""

import hashlib
import os
from collections.abc import Iterable
from typing import Any

from zoo import named
from zoo.errors import UserError


class Source:
  """Random access to raw examples: `len(source)`, `source[i] -> dict` (images as encoded bytes).

  Attributes:
    name: what a message calls it, e.g. `tfds:emoji[train]`.
    fingerprint: a text that changes when the examples may have changed; None if unknown (then nothing is cached).
    class_names: field -> names of its classes, where the source knows them.
  """

  name: str
  fingerprint: str | None = None
  class_names: dict[str, list[str]]

  def __len__(self) -> int:
    raise NotImplementedError

  def __getitem__(self, index: int) -> dict[str, Any]:
    raise NotImplementedError


def open_source(source: str, split: str = "train", data_dir: str | None = None) -> Source:
  """Opens `KIND:WHERE`, e.g. `open_source("tfds:emoji/style", "train[:90%]")`.

  Args:
    source: kind and place. Kinds are the files of zoo/data/sources.
    split: TFDS's split syntax: `train`, `train[:90%]`, `train[10:20]+test`. See zoo/data/sources/splits.py.
    data_dir: for `tfds` the folder of prepared datasets; else the folder that relative paths start from.
  """
  kind, colon, where = str(source).partition(":")
  if not colon or not where:
    raise UserError(f"source is '{source}'. It must be KIND:WHERE, e.g. tfds:emoji, text:notes/*.txt, images:photos.")
  return named.named("data.sources", kind)(where, split, data_dir)


def stamp(files: Iterable[str | os.PathLike]) -> str:
  """A fingerprint of files: their places, sizes and times of change."""
  digest = hashlib.blake2b(digest_size=16)
  for file in files:
    status = os.stat(file)
    digest.update(os.fsencode(os.path.abspath(file)) + f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
  return digest.hexdigest()


def read_file(path: str | os.PathLike) -> bytes:
  """The bytes of a file. Raises UserError if it cannot be read or is empty."""
  try:
    with open(path, "rb") as file:
      found = file.read()
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
  if not found.strip():
    raise UserError(f"{path} is empty. Remove it, or restore it.")
  return found
