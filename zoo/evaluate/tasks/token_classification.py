"""Task: token classification: named entities, parts of speech or other classes of words."""

from collections.abc import Mapping
from typing import Any

from zoo.evaluate.columns import Column
from zoo.evaluate.tasks import Subject, Task, fields


def _section(subject: Subject, columns: Mapping[str, str]) -> dict[str, Any]:
  return {
    "name": "labelled_tokens",
    "tokenizer": subject.tokenizer_name(),
    "max_length": subject.text_length(),
    "classes": subject.class_names(),
    **fields(columns, words_field="words", label_field="tags"),
  }


token_classification = Task(
  does="entities, or other classes of words",
  needs="a head that classifies tokens",
  fits=lambda kind: kind.does == "classify_tokens" and kind.reads == "texts",
  columns={
    "words": Column(("tokens", "words", "text"), "a list of words"),
    "tags": Column(("ner_tags", "tags", "labels", "ner", "pos_tags", "pos"), "a list of classes, one for each word"),
  },
  evaluator="token_classification",
  section=_section,
  metrics="f1, precision, recall (entities), f1_KIND, accuracy; row majority",
)
