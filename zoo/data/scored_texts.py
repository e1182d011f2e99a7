"""Texts, or pairs of texts, with a score, for regression: batches of `tokens`, `valid`, `score`."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.data.bad_records import BadRecord
from zoo.data.fields import SourceRecords, encoder_for, first_record, text_info, text_of
from zoo.data.padding import check_row
from zoo.data.pipeline import Example
from zoo.data.screening import open_checked
from zoo.errors import shown


def scored_texts(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  tokenizer: str = "bert",
  max_length: int = 128,
  text_field: str = "text",
  pair_field: str | None = None,
  score_field: str = "score",
  cache: bool = False,
  bad_records: str | Mapping = "stop",
) -> "ScoredTexts":
  """Texts, or pairs of texts, with the model's special tokens and a target score.

  Args:
    source, split, data_dir: see `zoo.data.sources.open_source`.
    tokenizer: name, or path of a tokenizer.json or of a published model's folder.
    max_length: tokens of an example; a longer text is truncated.
    text_field, pair_field: fields of the text and of a second one.
    score_field: field of the number, which may be written as text.
    cache: keep the tokens in memory.
    bad_records: "stop" at the first one, or {"action": "skip", "most": 0.01}; see `zoo.data.bad_records`.

  Each example: `tokens` int32 [max_length], `valid` bool [max_length], False on padding, for pairs `segments` int32
  [max_length], `score` float32 []. `info`: source, tokenizer, vocab_size, max_length.
  """
  check_row(max_length=max_length)
  raw, rule = open_checked(source, split, data_dir, bad_records)
  first_record(raw, rule, text_field, pair_field, score_field)  # Which must have them.
  encoder = encoder_for(tokenizer, max_length)
  records = ScoredTexts(raw, rule, cache)
  records.tokenizer, records.max_length, records.fields = encoder, max_length, (text_field, pair_field, score_field)
  records.info = text_info(raw, encoder, max_length)
  return records


class ScoredTexts(SourceRecords):
  """See `scored_texts`."""

  tokenizer: Any
  max_length: int
  fields: tuple[str, str | None, str]

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    return self.prepared[index]

  def _prepare(self, raw: dict[str, Any], index: int) -> Example:
    what = self.source.where(index)
    self._check(raw, index, *self.fields)
    text, pair, score = self.fields
    texts = [text_of(raw[field], f"{what}: {field}") for field in (text, pair) if field is not None]
    batch = self.tokenizer(*texts, length=self.max_length)
    number = number_of(raw[score], f"{what}: {score}")
    return {**{name: array[0] for name, array in batch.items()}, "score": np.asarray(number)}


def number_of(value: Any, what: str) -> np.float32:
  """Parses a finite number; BadRecord, whose message begins with `what`, for anything else.

  >>> float(number_of("2.5", "line 1"))
  2.5
  """
  try:
    number = float(value.decode() if isinstance(value, bytes) else value)
  except (TypeError, ValueError):
    number = math.nan
  if isinstance(value, bool) or not math.isfinite(number):
    raise BadRecord(f"{what} is {shown(value)}, not a number.")
  return np.float32(number)
