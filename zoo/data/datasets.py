"""Datasets by name: the records of a source, or the examples of a run."""

from collections.abc import Mapping
from typing import Any

from zoo.config import registry
from zoo.config.loading import without
from zoo.data.sources import open_source
from zoo.errors import UserError
from zoo.json_files import read_json
from zoo.storage import as_path, is_remote

CONFIG = "config.json"


def load_data(source: Any, split: str = "test") -> Any:
  """Opens a dataset by its name, or the examples that a run's model reads.

  >>> digits = load_data("tfds:digits", "test")
  >>> len(digits), sorted(digits[0])
  (1000, ['image', 'label'])

  Args:
    source: a source such as "tfds:emoji", "images:FOLDER" or "jsonl:FILES": raw records,
      images and texts as bytes. Or the folder of a run, or a config's section `data`: examples as from its pipeline,
      without augmentation.
    split: in TFDS's syntax: "test", "train[:10%]".

  Returns:
    a sequence: `len(data)` records, `data[i]` a dict of numpy arrays.

  Raises:
    UserError: there is no such source, split or run.
  """
  if isinstance(source, str) and ":" in source and not is_remote(source):
    return open_source(source, split)
  if not isinstance(source, Mapping):
    folder: Any = as_path(source)
    if not (folder / CONFIG).exists():
      raise UserError(
        f"{source} has no {CONFIG}: it is not a run folder. Name a source as KIND:WHERE, e.g. tfds:emoji."
      )
    source = read_json(folder / CONFIG)["data"]
  return registry.build("data", {**without(source, "augment", "workers"), "split": split})
