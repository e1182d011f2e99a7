"""Texts, or pairs of texts, with class labels: batches of `tokens`, `valid`, `label`."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from zoo.data.bad_records import Policy
from zoo.data.class_labels import numbering
from zoo.data.columns import COMPARED, LABEL, TEXT, column, pair_of_columns
from zoo.data.columns import class_names as class_names_of
from zoo.data.fields import SourceRecords, encoder_for, first_record, text_info, text_of
from zoo.data.padding import check_row
from zoo.data.pipeline import Example
from zoo.data.screening import open_checked
from zoo.data.sources import Source


def labelled_texts(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  tokenizer: str = "bert",
  max_length: int = 128,
  text_field: str | None = None,
  pair_field: str | None = None,
  label_field: str | None = None,
  class_names: list[str] | None = None,
  classes: list[str] | None = None,
  labels: Mapping | None = None,
  cache: bool = True,
  bad_records: str | Mapping = "stop",
) -> "LabelledTexts":
  """Labelled texts, or pairs of texts, with the model's special tokens and class indices.

  Args:
    source, split, data_dir: see `zoo.data.sources.open_source`.
    tokenizer: name, or path of a tokenizer.json or of a published model's folder.
    max_length: tokens of an example; a longer text is truncated.
    text_field: field of the source that holds the text; None: `text`, or another usual name, or the first of two texts
      that are compared, such as sentence1 and sentence2 (`zoo.data.columns`).
    pair_field: field of a second text, e.g. the answer to a question, the hypothesis for a premise.
    label_field: field of the class: an int, or a name if class names are known.
    class_names: names of the classes, in order of their indices; by default the source's, or those in `train`.
    classes: names of a trained model's classes, in the order of its logits: labels are mapped to them, by name if
      the data have names; see `zoo.data.class_labels`. Instead of class_names.
    labels: with `classes`: label of the data -> name or index of the class, for names that do not match.
    cache: keep the tokens in memory.
    bad_records: "stop" at the first one, or {"action": "skip", "most": 0.01}; see `zoo.data.bad_records`.

  Each example: `tokens` int32 [max_length], `valid` bool [max_length], False on padding, for pairs `segments` int32
  [max_length], `label` int32 []. `info`: source, tokenizer, vocab_size, max_length, class_names (None if unknown),
  num_classes (None if unknown).
  """
  check_row(max_length=max_length)
  raw, rule = open_checked(source, split, data_dir, bad_records)
  if text_field is None:
    compared = pair_of_columns(raw, ("text_field", "pair_field"), (None, pair_field), COMPARED)
    text_field, pair_field = compared or (column(raw, "text_field", None, TEXT), pair_field)
  label_field = column(raw, "label_field", label_field, LABEL)
  first = first_record(raw, rule, text_field, pair_field, label_field)
  encoder = encoder_for(tokenizer, max_length)
  if not class_names and classes is None:
    class_names = class_names_of(raw, source, split, data_dir, label_field, first[label_field])
  number, names = numbering(raw, label_field, class_names, classes, labels)
  fields = (text_field, pair_field, label_field)
  return LabelledTexts(raw, rule, encoder, max_length, fields, number, names, cache)


class LabelledTexts(SourceRecords):
  """See `labelled_texts`."""

  def __init__(
    self,
    source: Source,
    rule: Policy,
    tokenizer: Any,
    max_length: int,
    fields: tuple[str, str | None, str],
    number: Callable[[Any, str], np.int32],
    class_names: list[str] | None,
    cache: bool,
  ):
    super().__init__(source, rule, cache)
    self.tokenizer, self.max_length, self.fields, self.number = tokenizer, max_length, fields, number
    num_classes = len(class_names) if class_names else None
    self.info = text_info(source, tokenizer, max_length, class_names=class_names, num_classes=num_classes)

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    return self.prepared[index]

  def _prepare(self, raw: dict[str, Any], index: int) -> Example:
    what = self.source.where(index)
    self._check(raw, index, *self.fields)
    text, pair, label = self.fields
    texts = [text_of(raw[field], f"{what}: {field}") for field in (text, pair) if field is not None]
    number = self.number(raw[label], what)
    batch = self.tokenizer(*texts, length=self.max_length)
    return {**{name: array[0] for name, array in batch.items()}, "label": np.asarray(number)}
