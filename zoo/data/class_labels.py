"""Maps labels of data to the classes of a trained model, by name if both have names."""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo.data.bad_records import BadRecord, utf8
from zoo.data.fields import class_number
from zoo.data.sources import Source
from zoo.errors import UserError, did_you_mean, shown

UNNAMED = re.compile(r"LABEL_\d+")  # transformers' default class names.


class ClassLabels:
  """Maps a record's label to the index of a model's class, int32 [].

  If the source names its classes, numbers are its own class indices and stand for their names. A label is tried as,
  in this order: a key of `labels`; the name of a class; the index of a class. Names match if they differ only in case,
  blanks, dashes and underscores.

  Args:
    classes: names of the model's classes, in the order of its logits.
    labels: label of the data -> name or index of the model's class, for names that do not match.
    source_names: class names of the source; None: unknown.
    what: the caller's name in messages.

  Raises:
    UserError: `labels` names a class that the model does not have, or a class of the source is not one of the model's.

  >>> numbers = ClassLabels(["NEGATIVE", "POSITIVE"])
  >>> [int(numbers(label, "line 1")) for label in ("positive", 1, "0")]
  [1, 1, 0]
  """

  def __init__(
    self,
    classes: Sequence[str],
    labels: Mapping[Any, str | int] | None = None,
    source_names: Sequence[str] | None = None,
    what: str = "data",
  ):
    self.classes = [str(name) for name in classes]
    self.exact = {name: number for number, name in enumerate(self.classes)}
    loose: dict[str, list[int]] = {}
    for number, name in enumerate(self.classes):
      loose.setdefault(_folded(name), []).append(number)
    self.loose = {name: numbers[0] for name, numbers in loose.items() if len(numbers) == 1}
    self.said = {str(label): self._said(target) for label, target in (labels or {}).items()}
    self.source_names = None
    if source_names is not None and not all(map(UNNAMED.fullmatch, self.classes)):
      strange = [name for name in source_names if self._by_name(str(name)) is None]
      if strange:
        raise UserError(
          f"{what} has the class {shown(str(strange[0]))}, not one of the model's: {_some(self.classes)}. Say "
          f"which each is: labels={{{shown(str(strange[0]))}: NAME OR NUMBER}}."
        )
      self.source_names = [str(name) for name in source_names]

  def __call__(self, label: Any, what: str) -> np.int32:
    """The index of the class; BadRecord, whose message begins with `what`, if there is none."""
    label = utf8(label, f"{what}: its label")
    text = label.strip() if isinstance(label, str) else str(_whole(label))
    if self.source_names is not None and text.isdecimal() and not isinstance(label, str):
      text = self.source_names[int(text)] if int(text) < len(self.source_names) else text
    number = self._by_name(text)
    if number is None and self.source_names is None and re.fullmatch(r"\d{1,9}", text):
      number = int(text)
    if number is None or not 0 <= number < len(self.classes):
      near = did_you_mean(text, self.classes)
      raise BadRecord(
        f"{what}: label {shown(label)} is not one of the model's classes.{near} It has: {_some(self.classes)}. "
        f"Say which it is: labels={{{shown(text)}: NAME OR NUMBER}}."
      )
    return np.int32(number)

  def _by_name(self, text: str) -> int | None:
    return next((names[key] for names, key in self._ways(text) if key in names), None)

  def _ways(self, text: str) -> list[tuple[Mapping[str, int], str]]:
    return [(self.said, text), (self.exact, text), (self.loose, _folded(text))]

  def _said(self, target: str | int) -> int:
    """The index of a class named by the user."""
    number = target if isinstance(target, int) else self.exact.get(target, self.loose.get(_folded(str(target)), -1))
    if isinstance(target, bool) or not 0 <= number < len(self.classes):
      raise UserError(f"labels names the class {shown(target)}, not one of the model's: {_some(self.classes)}.")
    return number


def numbering(
  source: Source,
  field: str,
  class_names: Sequence[str] | None,
  classes: Sequence[str] | None,
  labels: Mapping | None,
) -> tuple[Callable[[Any, str], np.int32], list[str] | None]:
  """A pipeline's label encoder: (label, record's name) -> int32 [], and the names of the classes, None if unknown.

  Args:
    source: raw examples.
    field: of the label.
    class_names: names of the classes; by default the source's.
    classes, labels: of a trained model, as in `ClassLabels`; instead of class_names.
  """
  names = source.class_names.get(field)
  if classes is not None:
    return ClassLabels(classes, labels, names, source.name), list(classes)
  if labels is not None:
    raise UserError("labels says which of a model's classes a label is: it goes with classes.")
  names = list(class_names) if class_names else names
  return functools.partial(_of_names, {name: number for number, name in enumerate(names or ())}), names


def _of_names(numbers: Mapping[str, int], label: Any, what: str) -> np.int32:
  return class_number(label, numbers, what)


def _whole(label: Any) -> Any:
  """Converts integral numbers, such as 1.0 or NumPy's, to int."""
  if isinstance(label, bool | np.bool_):
    return int(label)
  return int(label) if isinstance(label, float | np.number) and float(label).is_integer() else label


def _folded(name: str) -> str:
  return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _some(names: Sequence[str], most: int = 12) -> str:
  return ", ".join([*names[:most], *(["..."] if len(names) > most else [])])
