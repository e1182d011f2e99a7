"""Class names in a column of the data, and their comparison with a model's."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.data.bad_records import BadRecord, utf8
from zoo.data.class_labels import UNNAMED, ClassLabels
from zoo.data.sources import Source
from zoo.errors import UserError

MOST = 10_000  # Maximum number of classes: a column with more holds something else.


def classes_in(source: Source, field: str, several: bool) -> list[str]:
  """Class names in a field, in order of their indices.

  The source's own names if it has them. Else all distinct values, sorted: strings alphabetically, numbers by value;
  numbers from 0 on without a gap are LABEL_0, LABEL_1 ..., transformers' names of unnamed classes.

  Args:
    source: the source, which is read completely.
    field: the field.
    several: whether a record has a list of classes, or a str with blanks between them.

  Raises:
    UserError: there are none, or more than 10,000.
  """
  if field in source.class_names:
    return [str(name) for name in source.class_names[field]]
  names: set[str] = set()
  for index in range(len(source)):
    with contextlib.suppress(BadRecord):  # Whoever reads the records says what is wrong, or skips it.
      value, where = source[index].get(field), f"{source.where(index)}: its label"
      names |= {_name(item, where) for item in (_items(value, where) if several else [value])} - {""}
    if len(names) > MOST:
      raise UserError(f"{source.name}: '{field}' has more than {MOST:,} values. Name the field of the classes.")
  if not names:
    raise UserError(f"{source.name}: '{field}' has no classes. Name the field of the classes.")
  if not all(name.isdecimal() for name in names):
    return sorted(names)
  numbers = sorted(map(int, names))
  return [f"LABEL_{n}" if numbers == list(range(len(numbers))) else str(n) for n in numbers]


def are_those_of(classes: Sequence[str], of_model: Sequence[str]) -> bool:
  """Whether the classes of data are a model's: all names are among its names, or both are unnamed.

  >>> are_those_of(["good"], ["BAD", "GOOD"]), are_those_of(["LABEL_0", "LABEL_1"], ["BAD", "GOOD"])
  (True, True)
  >>> are_those_of(["bad", "good"], ["LABEL_0", "LABEL_1"]), are_those_of(["LABEL_0"], ["BAD", "GOOD"])
  (False, False)
  """
  if all(map(UNNAMED.fullmatch, classes)):
    return len(classes) == len(of_model)
  if all(map(UNNAMED.fullmatch, of_model)):
    return list(classes) == list(of_model)
  try:
    ClassLabels(of_model, source_names=classes)
  except UserError:
    return False
  return True


def _items(value: Any, where: str) -> list[Any]:
  value = utf8(value, where)
  items = value.split() if isinstance(value, str) else value.tolist() if isinstance(value, np.ndarray) else value
  return list(items) if isinstance(items, list | tuple) else []


def _name(value: Any, where: str) -> str:
  """A class as a str; "" for an empty cell. BadRecord for bytes that are not UTF-8."""
  value = utf8(value, where)
  if isinstance(value, float | np.number) and float(value).is_integer() or isinstance(value, bool | np.bool_):
    value = int(value)
  return "" if value is None else str(value).strip()
