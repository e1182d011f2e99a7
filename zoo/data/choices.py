"""Multiple choice: batches of `tokens`, `valid`, `label`, with an axis of choices."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.data.bad_records import BadRecord, utf8
from zoo.data.fields import SourceRecords, encoder_for, first_record, text_info, text_of
from zoo.data.labelled_tokens import items_of
from zoo.data.padding import check_row
from zoo.data.pipeline import Example
from zoo.data.screening import open_checked
from zoo.errors import shown


def choices(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  tokenizer: str = "bert",
  max_length: int = 128,
  text_field: str = "question",
  start_field: str | None = None,
  choices_field: str | Sequence[str] = "choices",
  label_field: str = "label",
  cache: bool = False,
  bad_records: str | Mapping = "stop",
) -> "Choices":
  """Multiple-choice examples: a text paired with each of its choices, equally many in all records.

  Args:
    source, split, data_dir: see `zoo.data.sources.open_source`.
    tokenizer: name, or path of a tokenizer.json or of a published model's folder.
    max_length: tokens of a pair; the longer text is cut.
    text_field: field of the text.
    start_field: field of the beginning of every choice, as in SWAG.
    choices_field: field of the list of choices, or of {"text": [...], "label": [...]}; or several fields with one each.
    label_field: field of the right choice: its index from 0, its letter, its name in the choices' "label", or its text.
    cache: keep the tokens in memory.
    bad_records: "stop" at the first one, or {"action": "skip", "most": 0.01}; see `zoo.data.bad_records`.

  Each example: `tokens` int32 [choices, max_length], `valid` bool, False on padding, and `segments` int32 likewise, and
  `label` int32 []. `info`: source, tokenizer, vocab_size, max_length, num_choices.
  """
  check_row(max_length=max_length)
  raw, rule = open_checked(source, split, data_dir, bad_records)
  several = [choices_field] if isinstance(choices_field, str) else list(choices_field)
  first = first_record(raw, rule, text_field, start_field, *several, label_field)
  encoder = encoder_for(tokenizer, max_length)
  records = Choices(raw, rule, cache)
  records.tokenizer, records.max_length = encoder, max_length
  records.fields = (text_field, start_field, several, label_field)
  records.count = len(records.options(first, raw.name)[0])
  records.info = text_info(raw, encoder, max_length, num_choices=records.count)
  return records


class Choices(SourceRecords):
  """See `choices`."""

  tokenizer: Any
  max_length: int
  fields: tuple[str, str | None, list[str], str]
  count: int

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    return self.prepared[index]

  def options(self, raw: Mapping[str, Any], what: str) -> tuple[list[str], list[str]]:
    """The choices of a record, and their names in the data."""
    fields = self.fields[2]
    if len(fields) > 1:
      texts = [text_of(raw[field], f"{what}: {field}") for field in fields]
      return texts, fields
    value, names = raw[fields[0]], []
    if isinstance(value, Mapping):
      names = [str(name) for name in value.get("label", ())]
      value = value.get("text")
    if isinstance(value, str):
      raise BadRecord(f"{what}: {fields[0]} is {shown(value, 80)}. It must be a list of str.")
    texts = [text_of(text, f"{what}: {fields[0]}") for text in items_of(value, f"{what}: {fields[0]}")]
    return texts, names if len(names) == len(texts) else [chr(ord("A") + number) for number in range(len(texts))]

  def _prepare(self, raw: dict[str, Any], index: int) -> Example:
    what = self.source.where(index)
    text_field, start_field, fields, label_field = self.fields
    self._check(raw, index, text_field, start_field, *fields, label_field)
    options, names = self.options(raw, what)
    if len(options) != self.count:
      raise BadRecord(f"{what} has {len(options)} choices, the first record {self.count}. All need equally many.")
    text = text_of(raw[text_field], f"{what}: {text_field}")
    start = "" if start_field is None else text_of(raw[start_field], f"{what}: {start_field}") + " "
    label = right_one(raw[label_field], options, names, f"{what}: {label_field}")
    batch = self.tokenizer([text] * len(options), [start + option for option in options], length=self.max_length)
    return {**batch, "label": np.asarray(label, np.int32)}


def right_one(label: Any, options: Sequence[str], names: Sequence[str], what: str) -> int:
  """The index of the right choice, from its label.

  >>> right_one("B", ["yes", "no"], ["A", "B"], "record 0"), right_one("0", ["yes", "no"], ["A", "B"], "record 1")
  (1, 0)
  """
  text = str(utf8(label, f"{what}: its label"))
  for candidates in (names, options):
    if text in candidates:
      return list(candidates).index(text)
  if not text.isdecimal() or int(text) >= len(options) or isinstance(label, bool):
    raise BadRecord(f"{what} is {shown(label)}, not one of the {len(options)} choices: {', '.join(names)}.")
  return int(text)
