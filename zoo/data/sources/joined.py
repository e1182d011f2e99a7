"""Concatenates sources."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.data.sources import Source


class Joined(Source):
  """Records chosen from several sources.

  Args:
    name: its name in messages.
    parts: the sources.
    chosen: int [records, 2]: source, record in it.
    class_names: field -> names of its classes, which override those of the sources.
  """

  def __init__(self, name: str, parts: list[Source], chosen: np.ndarray, class_names: Mapping[str, list[str]]):
    self.name, self.parts, self.chosen = name, parts, chosen
    of_parts = {field: names for part in parts for field, names in part.class_names.items()}
    self.class_names = {**of_parts, **class_names}
    self.hint = parts[0].hint if parts else ""
    prints = [part.fingerprint for part in parts]
    self.fingerprint = None if None in prints else f"{name} {' '.join(map(str, prints))}"
    broken = {(number, row): error for number, part in enumerate(parts) for row, error in part.broken.items()}
    places = enumerate(map(tuple, chosen.tolist())) if broken else ()
    self.broken = {index: broken[place] for index, place in places if place in broken}

  def __len__(self) -> int:
    return len(self.chosen)

  def __getitem__(self, index: int) -> dict[str, Any]:
    number, row = self.chosen[index].tolist()
    return self.parts[number][row]

  def where(self, index: int) -> str:
    number, row = self.chosen[index].tolist()
    return self.parts[number].where(row)
