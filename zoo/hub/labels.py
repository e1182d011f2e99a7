"""Class names from a model's folder."""

import pathlib
from collections.abc import Mapping
from typing import Any

from zoo.errors import UserError, shown
from zoo.hub.files import CONFIG, is_published
from zoo.json_files import read_json

SEVERAL = "multi_label_classification"


def class_names_in(folder: pathlib.Path, num_classes: int) -> list[str] | None:
  """Class names of the model in a folder, in the order of its logits; None if it has none.

  For a published model id2label of its config.json; for a run class_names, or classes, of its config's section of data.

  Raises:
    UserError: id2label does not have `num_classes` classes, names are not unique, or labels are not exclusive.
  """
  if not (folder / CONFIG).is_file():
    return None
  config = read_json(folder / CONFIG)
  if not is_published(folder):
    data = config.get("data")
    data = data if isinstance(data, Mapping) else {}
    names = data.get("class_names") or data.get("classes")
    return [str(name) for name in names] if isinstance(names, list) and len(names) == num_classes else None
  where = f"{folder / CONFIG}"
  if config.get("problem_type") == SEVERAL:
    raise UserError(f"{where}: problem_type is {SEVERAL}: multi-label classification, which no task measures.")
  return _numbered(config.get("id2label"), num_classes, where)


def list_of_classes(id2label: Any, num_classes: int | None) -> list[str] | None:
  """The names in an id2label in the order of the logits; None unless all classes have real names.

  >>> list_of_classes({"1": "dog", "0": "cat"}, 2), list_of_classes({"0": "LABEL_0"}, 1)
  (['cat', 'dog'], None)
  """
  if not isinstance(id2label, Mapping) or num_classes is None:
    return None
  names = {str(number): name for number, name in id2label.items()}
  ordered = [names.get(str(number)) for number in range(num_classes)]
  fine = len(names) == num_classes and all(isinstance(name, str) for name in ordered)
  unnamed = [f"LABEL_{number}" for number in range(num_classes)]
  return [str(name) for name in ordered] if fine and ordered != unnamed else None


def _numbered(id2label: Any, num_classes: int, where: str) -> list[str] | None:
  if not isinstance(id2label, Mapping) or not id2label:
    return None
  names = {str(number): str(name) for number, name in id2label.items()}
  numbers = [str(number) for number in range(num_classes)]
  if sorted(names) != sorted(numbers):
    raise UserError(f"{where}: id2label is {shown(id2label)}. It must name the classes 0 to {num_classes - 1}.")
  if len(set(names.values())) < num_classes:
    raise UserError(f"{where}: id2label is {shown(id2label)}, where two classes have one name. Name each.")
  return [names[number] for number in numbers]
