"""Task: multiple choice."""

from collections.abc import Mapping
from typing import Any

from zoo.evaluate.columns import Column
from zoo.evaluate.tasks import Subject, Task, fields


def _section(subject: Subject, columns: Mapping[str, str]) -> dict[str, Any]:
  choices = columns["choices"].split("+")
  return {
    "name": "choices",
    "tokenizer": subject.tokenizer_name(),
    "max_length": subject.text_length(),
    **fields(columns, text_field="text", start_field="start", label_field="label"),
    "choices_field": choices if len(choices) > 1 else choices[0],
  }


multiple_choice = Task(
  does="choosing the text that goes with another",
  needs="a head that chooses among texts",
  fits=lambda kind: kind.does == "multiple_choice",
  columns={
    "text": Column(("article", "context", "ctx", "sent1", "premise", "passage", "question", "text"), "a text"),
    "start": Column(("sent2", "question"), "what every choice begins with", needed=False),
    "choices": Column(
      ("choices", "options", "endings", "ending0+ending1+ending2+ending3", "choice1+choice2"),
      "a list of texts; or a field for each, with + between them",
    ),
    "label": Column(
      ("label", "answer", "answerKey", "labels", "gold"), "the number of the right one from 0, its letter or its text"
    ),
  },
  evaluator="multiple_choice",
  section=_section,
  metrics="accuracy, loss; rows chance, majority",
)
