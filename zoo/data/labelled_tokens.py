"""Token classification: texts split into words with a class per word: batches of `tokens`, `valid`, `label`."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from zoo.data.bad_records import BadRecord, utf8
from zoo.data.class_labels import numbering
from zoo.data.fields import SourceRecords, first_record, text_info
from zoo.data.padding import check_row
from zoo.data.pipeline import Example
from zoo.data.screening import open_checked
from zoo.data.tokenizers import tokenizer as open_tokenizer
from zoo.data.tokenizers.alignment import row_of_words
from zoo.errors import shown


def labelled_tokens(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  tokenizer: str = "bert",
  max_length: int = 128,
  words_field: str = "tokens",
  label_field: str = "ner_tags",
  class_names: list[str] | None = None,
  classes: list[str] | None = None,
  labels: Mapping | None = None,
  cache: bool = False,
  bad_records: str | Mapping = "stop",
) -> "LabelledTokens":
  """Lists of words with a class per word; the first token of a word carries its label.

  Args:
    source, split, data_dir: see `zoo.data.sources.open_source`.
    tokenizer: name, or path of a tokenizer.json or of a published model's folder.
    max_length: tokens of an example; words that do not fit are dropped.
    words_field: field of the list of words, or of a text with blanks between them.
    label_field: field of the list of classes, one per word: names or indices.
    class_names: names of the classes, in order of their indices; by default the source's, if known.
    classes, labels: names of a trained model's classes, and label of the data -> name or index; as in
      `labelled_texts`.
    cache: keep the tokens in memory.
    bad_records: "stop" at the first one, or {"action": "skip", "most": 0.01}; see `zoo.data.bad_records`.

  Each example: `tokens` int32 [max_length], `valid` bool [max_length], False on padding, `label` int32 [max_length], -1
  for special tokens, padding and all but the first token of a word; `cut` int32 [], the number of words that do
  not fit. `info`: source, tokenizer, vocab_size, max_length, class_names (None if unknown), num_classes.
  """
  check_row(max_length=max_length)
  raw, rule = open_checked(source, split, data_dir, bad_records)
  first_record(raw, rule, words_field, label_field)  # Which must have them.
  encoder = open_tokenizer(tokenizer)
  records = LabelledTokens(raw, rule, cache)
  records.tokenizer, records.max_length, records.fields = encoder, max_length, (words_field, label_field)
  records.number, names = numbering(raw, label_field, class_names, classes, labels)
  records.info = text_info(raw, encoder, max_length, class_names=names, num_classes=len(names) if names else None)
  return records


class LabelledTokens(SourceRecords):
  """See `labelled_tokens`."""

  tokenizer: Any
  max_length: int
  fields: tuple[str, str]
  number: Callable[[Any, str], np.int32]

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    return self.prepared[index]

  def _prepare(self, raw: dict[str, Any], index: int) -> Example:
    what = self.source.where(index)
    self._check(raw, index, *self.fields)
    words, tags = (items_of(raw[field], f"{what}: {field}") for field in self.fields)
    if len(words) != len(tags):
      raise BadRecord(f"{what} has {len(words)} words and {len(tags)} labels. Give each word its own.")
    row = row_of_words(self.tokenizer, [str(word) for word in words], self.max_length)
    numbers = np.array([self.number(tag, what) for tag in tags], np.int32)
    begins = (row.origin >= 0) & (row.origin != np.roll(row.origin, 1))
    if len(row.origin) and row.origin[0] >= 0:
      begins[0] = True
    tokens, valid = np.full(self.max_length, self.tokenizer.pad or 0, np.int32), np.zeros(self.max_length, bool)
    label = np.full(self.max_length, -1, np.int32)
    columns = slice(-len(row.tokens), None) if self.tokenizer.pads_left else slice(len(row.tokens))
    tokens[columns], valid[columns] = row.tokens, True
    label[columns] = np.where(begins, numbers[np.maximum(row.origin, 0)], -1)
    return {"tokens": tokens, "valid": valid, "label": label, "cut": np.asarray(len(words) - begins.sum(), np.int32)}


def items_of(value: Any, what: str) -> list[Any]:
  """Converts a list, an array, or a text with blanks between words to a non-empty list."""
  value = utf8(value, what)
  items = value.split() if isinstance(value, str) else value.tolist() if isinstance(value, np.ndarray) else value
  if not isinstance(items, list | tuple) or not items:
    raise BadRecord(f"{what} is {shown(value, 80)}. It must be a list with an entry for each word.")
  return [utf8(item, what) for item in items]
