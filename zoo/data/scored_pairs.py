"""Pairs of texts with a score, as strings, for models with their own text processing."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.data.fields import SourceRecords, first_record, text_of
from zoo.data.pipeline import Example
from zoo.data.scored_texts import number_of
from zoo.data.screening import open_checked


def scored_pairs(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  text_field: str = "sentence1",
  pair_field: str = "sentence2",
  score_field: str = "score",
  bad_records: str | Mapping = "stop",
) -> "ScoredPairs":
  """Pairs of texts with a similarity score.

  Args:
    source, split, data_dir: see `zoo.data.sources.open_source`.
    text_field, pair_field: fields of the two texts.
    score_field: field of the number, which may be written as text.
    bad_records: "stop" at the first one, or {"action": "skip", "most": 0.01}; see `zoo.data.bad_records`.

  Each example: `score` float32 []. `texts(index)`: the two texts as strings. `info`: source.
  """
  raw, rule = open_checked(source, split, data_dir, bad_records)
  first_record(raw, rule, text_field, pair_field, score_field)  # Which must have them.
  records = ScoredPairs(raw, rule, cache=False)
  records.fields, records.info = (text_field, pair_field, score_field), {"source": raw.name}
  return records


class ScoredPairs(SourceRecords):
  """See `scored_pairs`."""

  fields: tuple[str, str, str]

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    return {"score": np.asarray(self.prepared[index][2])}

  def texts(self, index: int) -> tuple[str, str]:
    """The two texts of a record."""
    return self.prepared[index][:2]

  def _prepare(self, raw: dict[str, Any], index: int) -> tuple[str, str, np.float32]:
    what = self.source.where(index)
    self._check(raw, index, *self.fields)
    text, pair, score = self.fields
    first, second = (text_of(raw[field], f"{what}: {field}") for field in (text, pair))
    return first, second, number_of(raw[score], f"{what}: {score}")
