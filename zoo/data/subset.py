"""A subset of a source's records."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from zoo.data.sources import Source


class Subset(Source):
  """Chosen records of a source.

  Args:
    source: the full source.
    kept: int [records], indices in the source.
    bad: errors of the skipped ones.
  """

  def __init__(self, source: Source, indices: np.ndarray, bad: Iterable[str] = ()):
    self.source, self.kept, self.bad = source, indices, (*source.bad, *bad)
    self.name, self.class_names, self.hint = source.name, source.class_names, source.hint
    self.blocks = None if source.blocks is None else source.blocks[indices]
    self.window, self.lanes, self.reads_ahead = source.window, source.lanes, source.reads_ahead
    digest = hashlib.blake2b(indices.tobytes(), digest_size=8).hexdigest()
    self.fingerprint = None if source.fingerprint is None else f"{source.fingerprint} {digest}"
    self.broken = {
      position: source.broken[index] for position, index in enumerate(indices.tolist()) if index in source.broken
    }

  def __len__(self) -> int:
    return len(self.kept)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self.source[int(self.kept[index])]

  def fetch(self, block: int) -> None:
    self.source.fetch(block)

  def where(self, index: int) -> str:
    return self.source.where(int(self.kept[index]))


def without(source: Source, problems: Mapping[int, str]) -> Subset:
  """`source` without the records in `problems`, record -> its error."""
  indices = np.setdiff1d(np.arange(len(source)), np.fromiter(problems, int, len(problems)))
  return Subset(source, indices, [problems[index] for index in sorted(problems)])
