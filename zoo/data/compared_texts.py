"""Texts that belong together, and some that do not: batches of `tokens`, `valid`, `text_ids`, with an axis texts."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.data.bad_records import BadRecord, policy
from zoo.data.fields import (
  SourceRecords,
  check_fields,
  encoder_for,
  first_record,
  group_of,
  text_info,
  text_of,
  texts_of,
)
from zoo.data.padding import check_row
from zoo.data.pipeline import Example
from zoo.data.scored_texts import number_of
from zoo.data.screening import check_bad_records
from zoo.data.sources import open_source
from zoo.errors import UserError

PROBED = 100  # Records whose negatives are counted.


def compared_texts(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  tokenizer: str = "bert",
  max_length: int = 128,
  text_field: str = "anchor",
  pair_field: str = "positive",
  negatives_field: str | Sequence[str] | None = None,
  num_negatives: int | None = None,
  score_field: str | None = None,
  score_range: Sequence[float] | None = None,
  query_prompt: str = "",
  document_prompt: str = "",
  cache: bool = False,
  bad_records: str | Mapping = "stop",
) -> "ComparedTexts":
  """A text, the one that goes with it, and negatives or a score.

  Args:
    source, split, data_dir: as `zoo.data.sources.open_source` takes them.
    tokenizer: name, or path of a tokenizer.json or of a published model's folder.
    max_length: tokens of a text; a longer one is cut.
    text_field, pair_field: fields of the two texts.
    negatives_field: field of a text, or of a list of texts, that do not go with the first; or several fields, of one
      each. An empty one is none. None: there are no negatives.
    num_negatives: of a longer list so many are read; None: as many as the first 100 records have, and more are refused.
    score_field: field of a number, how alike the two are. None: they go together.
    score_range: the numbers that become 0 and 1, e.g. [0, 5] of STS-B; None: scores are from -1 to 1 as they are.
    query_prompt, document_prompt: what the first text, and all others, are preceded by.
    cache: keep the tokens in memory.
    bad_records: "stop" at the first one, or {"action": "skip", "most": 0.01}; see `zoo.data.bad_records`.

  Each example: `tokens` int32 [texts, max_length], `valid` bool, alike, False on padding, `text_ids` int32 [texts],
  equal for equal texts; with negatives `present` bool [texts]; with a score `score` float32 []. `texts(index)`: the
  texts without prompts. `info`: source, tokenizer, vocab_size, max_length, negatives.
  """
  check_row(max_length=max_length)
  if score_range is not None and (len(score_range) != 2 or not score_range[0] < score_range[1]):
    raise UserError(f"score_range is {list(score_range)}. It must be two numbers, the lower one first: [0, 5].")
  raw, rule = open_source(source, split, data_dir), policy(bad_records)
  check_bad_records(raw, rule)
  negatives = [negatives_field] if isinstance(negatives_field, str) else list(negatives_field or ())
  first = first_record(raw, rule, text_field, pair_field, *negatives, score_field)
  check_fields(raw, text_field, pair_field, *negatives, score_field, record=first)
  encoder = encoder_for(tokenizer, max_length)
  records = ComparedTexts(raw, rule, cache)
  records.tokenizer, records.max_length = encoder, max_length
  records.fields, records.negatives = (text_field, pair_field, score_field), negatives
  records.score_range, records.prompts = score_range, (query_prompt, document_prompt)
  if num_negatives is not None and (num_negatives < 1 or not negatives):
    raise UserError(f"num_negatives is {num_negatives}. It must be at least 1, beside a negatives_field.")
  records.cut, records.count = num_negatives is not None, num_negatives or records.most()
  records.info = text_info(raw, encoder, max_length, negatives=records.count)
  return records


class ComparedTexts(SourceRecords):
  """See `compared_texts`."""

  tokenizer: Any
  max_length: int
  fields: tuple[str, str, str | None]
  negatives: list[str]
  score_range: Sequence[float] | None
  prompts: tuple[str, str]
  count: int
  cut: bool

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    return self.prepared[index]

  def texts(self, index: int) -> list[str]:
    """The texts of a record: the first, the one that goes with it, and its negatives, "" where there is none."""
    return self._texts(self.source[index], index)

  def most(self) -> int:
    """The most negatives that one of the first records has."""
    counts = [0]
    for index in range(min(len(self), PROBED)):
      with contextlib.suppress(BadRecord, KeyError):
        counts.append(len(self.negatives_of(self.source[index], "")))
    return max(counts)

  def negatives_of(self, raw: Mapping[str, Any], what: str) -> list[str]:
    """The negatives of a record; of several fields "" where one is empty."""
    if len(self.negatives) == 1:
      return texts_of([] if raw[self.negatives[0]] is None else raw[self.negatives[0]], f"{what}: {self.negatives[0]}")
    return [(texts_of([] if raw[field] is None else raw[field], what) or [""])[0] for field in self.negatives]

  def _texts(self, raw: Mapping[str, Any], index: int) -> list[str]:
    what = self.source.where(index)
    self._check(raw, index, *self.fields, *self.negatives)
    texts = [text_of(raw[field], f"{what}: {field}") for field in self.fields[:2]]
    negatives = self.negatives_of(raw, what)
    if len(negatives) > self.count and not self.cut:
      raise BadRecord(
        f"{what} has {len(negatives)} negatives, the first {PROBED} records at most {self.count}. Set num_negatives."
      )
    return texts + negatives[: self.count] + [""] * (self.count - len(negatives))

  def _prepare(self, raw: dict[str, Any], index: int) -> Example:
    texts = self._texts(raw, index)
    prompts = [self.prompts[0], *[self.prompts[1]] * (len(texts) - 1)]
    batch = self.tokenizer([prompt + text for prompt, text in zip(prompts, texts)], length=self.max_length)
    example = {"tokens": batch["tokens"], "valid": batch["valid"], "text_ids": np.stack([*map(group_of, texts)])}
    if self.negatives:
      example["present"] = np.array([bool(text) for text in texts])
    if self.fields[2] is not None:
      example["score"] = self._score(raw[self.fields[2]], f"{self.source.where(index)}: {self.fields[2]}")
    return example

  def _score(self, value: Any, what: str) -> np.ndarray:
    number, low, high = float(number_of(value, what)), *(self.score_range or (0, 1))
    score = (number - low) / (high - low)
    if not -1 <= score <= 1:
      way_out = "Set the scores of unrelated and of equal texts, as in --config.data.score_range='[0, 5]'."
      raise BadRecord(f"{what} is {number:g}, not a cosine in [-1, 1]. {way_out}")
    return np.asarray(score, np.float32)
