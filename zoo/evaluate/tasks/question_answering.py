"""Task: extractive question answering."""

from collections.abc import Mapping
from typing import Any

from zoo.evaluate.columns import Column
from zoo.evaluate.tasks import Subject, Task, fields

LONGEST = 384  # Tokens of a window, and overlap of adjacent windows, as in BERT's run_squad.py.
STRIDE = 128


def _section(subject: Subject, columns: Mapping[str, str]) -> dict[str, Any]:
  length = min(subject.text_length(), LONGEST)
  return {
    "name": "question_answers",
    "tokenizer": subject.tokenizer_name(),
    "max_length": length,
    "stride": min(STRIDE, length // 3),
    **fields(columns, question_field="question", context_field="context", answers_field="answers"),
  }


question_answering = Task(
  does="answers found in texts, or that there is none",
  needs="a head that finds answers in texts",
  fits=lambda kind: kind.does == "question_answering" and kind.reads == "texts",
  columns={
    "question": Column(("question", "query"), "a question"),
    "context": Column(("context", "passage", "document", "text"), "the text that it is about"),
    "answers": Column(("answers", "answer"), "its answers, as SQuAD has them or as texts; none where there is none"),
  },
  evaluator="question_answering",
  section=_section,
  metrics="exact_match, f1 (both from 0 to 1), questions; of questions without an answer also exact_match_unanswered",
)
