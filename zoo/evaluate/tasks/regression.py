"""Task: regression on texts or pairs of texts."""

from collections.abc import Mapping
from typing import Any

from zoo.evaluate.columns import PAIR, SCORE, TEXT
from zoo.evaluate.tasks import Subject, Task, fields


def _section(subject: Subject, columns: Mapping[str, str]) -> dict[str, Any]:
  return {
    "name": "scored_texts",
    "tokenizer": subject.tokenizer_name(),
    "max_length": subject.text_length(),
    **fields(columns, text_field="text", pair_field="pair", score_field="score"),
  }


regression = Task(
  does="a number for texts or pairs of texts",
  needs="a head that gives texts a number (one class)",
  fits=lambda kind: kind.does == "score" and kind.reads == "texts",
  columns={"text": TEXT, "pair": PAIR, "score": SCORE},
  evaluator="regression",
  section=_section,
  metrics="pearson, spearman, mse; row mean",
)
