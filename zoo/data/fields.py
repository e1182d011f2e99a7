"""What raw examples hold, whichever source they come from: texts, class labels, and a memory for small sets."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from zoo.data.sources import Source
from zoo.errors import UserError, did_you_mean


def check_fields(source: Source, *fields: str | None) -> None:
  """Raises UserError if the first record of `source` lacks one of `fields` (None is no field)."""
  has = [field for field in source[0] if not field.startswith("__")]
  for field in fields:
    if field is not None and field not in has:
      raise UserError(f"{source.name} has no field '{field}'.{did_you_mean(field, has)} It has: {', '.join(has)}.")


def texts_of(value: Any, what: str) -> list[str]:
  """A text, or a list of texts, as bytes (TFDS) or str, as a list of str without blank ones."""
  values = list(value) if isinstance(value, list | tuple | np.ndarray) else [value]
  texts = [text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in values]
  if not all(isinstance(text, str) for text in texts):
    raise UserError(f"{what} is {value!r:.80}, which is no text.")
  return [text.strip() for text in texts if text.strip()]


def text_of(value: Any, what: str) -> str:
  """A single text, stripped of blanks around it; UserError if there is none."""
  texts = texts_of(value, what)
  if not texts:
    raise UserError(f"{what} is empty.")
  return texts[0]


def group_of(value: Any) -> np.int32:
  """A whole number that is equal for equal values: itself if it is one that fits, else a 31-bit hash."""
  if isinstance(value, int | np.integer) and 0 <= int(value) < 2**31:
    return np.int32(value)
  value = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else repr(value).encode()
  return np.int32(zlib.crc32(value) & 0x7FFFFFFF)


def class_number(label: Any, numbers: Mapping[str, int], what: str) -> np.int32:
  """The number of a class.

  Args:
    label: the number itself, or the name of the class.
    numbers: name -> number, of all classes; empty if unknown.
    what: the record, for messages.
  """
  label = label.decode("utf-8", "replace") if isinstance(label, bytes) else label
  if isinstance(label, str) and label in numbers:
    return np.int32(numbers[label])
  if isinstance(label, str) and not label.strip().isdecimal():
    known = ", ".join(list(numbers)[:20]) or "none. Set class_names"
    raise UserError(f"{what}: label {label!r} is no class. Known: {known}.")
  count = len(numbers) or 2**31
  if not isinstance(label, str | int | float | np.number) or not 0 <= float(label) < count or float(label) % 1:
    raise UserError(f"{what}: label {label!r} is not one of 0 to {count - 1}.")
  return np.int32(label)


class Prepared:
  """`prepare(source[i], i)`, which stays in memory once it was made if `cache` is set."""

  def __init__(self, source: Source, prepare: Callable[[dict[str, Any], int], Any], cache: bool):
    self._source, self._prepare = source, prepare
    self._memory: dict[int, Any] | None = {} if cache else None

  def __getitem__(self, index: int) -> Any:
    if self._memory is None:
      return self._prepare(self._source[index], index)
    if index not in self._memory:  # Two threads may prepare the same record; both get the same.
      self._memory[index] = self._prepare(self._source[index], index)
    return self._memory[index]
