"""Extractive question answering: batches of `tokens`, `valid`, `start`, `end`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from zoo.data.bad_records import BadRecord, utf8
from zoo.data.fields import SourceRecords, first_record, text_info, text_of
from zoo.data.padding import check_row
from zoo.data.pipeline import Example
from zoo.data.screening import open_checked
from zoo.data.tokenizers import tokenizer as open_tokenizer
from zoo.data.tokenizers.alignment import Row, rows_of_windows
from zoo.errors import UserError, shown


class Question(NamedTuple):
  """A question, its context, and its answers: (text, first character or -1); empty if unanswerable."""

  question: str
  context: str
  answers: list[tuple[str, int]]


def question_answers(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  tokenizer: str = "bert",
  max_length: int = 384,
  stride: int = 128,
  question_field: str = "question",
  context_field: str = "context",
  answers_field: str = "answers",
  cache: bool = False,
  bad_records: str | Mapping = "stop",
) -> "QuestionAnswers":
  """Questions paired with the window of the context that has the answer; one example per question.

  Args:
    source, split, data_dir: see `zoo.data.sources.open_source`.
    tokenizer: name, or path of a tokenizer.json or of a published model's folder.
    max_length: tokens of an example; a longer text is cut into windows.
    stride: tokens that adjacent windows share.
    question_field, context_field: fields of the question and of the text.
    answers_field: field of the answers: {"text": [...], "answer_start": [...]} as in SQuAD, a list of
      {"text": ..., "answer_start": ...}, a text or a list of texts. Empty: the context has no answer. A text that is
      not at its answer_start, in characters from 0, makes a bad record.
    cache: keep the tokens in memory.
    bad_records: "stop" at the first one, or {"action": "skip", "most": 0.01}; see `zoo.data.bad_records`.

  Each example: `tokens` int32 [max_length], `valid` bool [max_length], False on padding, `segments` int32 [max_length],
  `start`, `end` int32 [], the first and the last token of the answer; both the first of the row if there is none.
  `windows(index)`: all windows of a question; `question(index)`. `info`: source, tokenizer, vocab_size, max_length.

  Raises:
    UserError: stride is negative, or answers have none of the known forms.
  """
  if stride < 0:
    raise UserError(f"stride is {stride}. It must be 0 or more.")
  check_row(max_length=max_length)
  raw, rule = open_checked(source, split, data_dir, bad_records)
  first_record(raw, rule, question_field, context_field, answers_field)  # Which must have them.
  encoder = open_tokenizer(tokenizer)
  records = QuestionAnswers(raw, rule, cache)
  records.tokenizer, records.max_length, records.stride = encoder, max_length, stride
  records.fields = (question_field, context_field, answers_field)
  records.info = text_info(raw, encoder, max_length)
  return records


class QuestionAnswers(SourceRecords):
  """See `question_answers`."""

  tokenizer: Any
  max_length: int
  stride: int
  fields: tuple[str, str, str]

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    return self.prepared[index]

  def question(self, index: int) -> Question:
    """Record `index` as a `Question`."""
    return self._question(self.source[index], index)

  def windows(self, index: int) -> tuple[Question, list[tuple[Example, np.ndarray]]]:
    """The question, and its windows as rows: (tokens, valid, segments; origin int [max_length, 2]).

    origin: the character span of a token in the context, start and end; -1 for other tokens.
    """
    question = self.question(index)
    return question, [self._padded(row) for row in self._rows(question)]

  def count(self, index: int) -> int:
    """The number of windows of record `index`."""
    return len(self._rows(self.question(index)))

  def _question(self, raw: dict[str, Any], index: int) -> Question:
    what = self.source.where(index)
    self._check(raw, index, *self.fields)
    question, context, answers = self.fields
    text = utf8(raw[context], f"{what}: its {context}")
    if not isinstance(text, str) or not text.strip():
      raise BadRecord(f"{what}: {context} is {shown(text, 80)}, not a str.")
    listed = answers_of(raw[answers], f"{what}: {answers}")
    for answer, first in listed:
      there = text[first : first + len(answer)] if first >= 0 else answer
      if there != answer:
        raise BadRecord(
          f"{what}: {answers} has {shown(answer, 80)} at answer_start {first}, where {context} has {shown(there, 80)}. "
          "An answer_start counts characters from 0."
        )
    return Question(text_of(raw[question], f"{what}: {question}"), text, listed)

  def _rows(self, question: Question) -> list[Row]:
    return rows_of_windows(self.tokenizer, question.question, question.context, self.max_length, self.stride)

  def _padded(self, row: Row) -> tuple[Example, np.ndarray]:
    columns = slice(-len(row.tokens), None) if self.tokenizer.pads_left else slice(len(row.tokens))
    example = {
      "tokens": np.full(self.max_length, self.tokenizer.pad or 0, np.int32),
      "valid": np.zeros(self.max_length, bool),
      "segments": np.zeros(self.max_length, np.int32),
    }
    example["tokens"][columns], example["valid"][columns], example["segments"][columns] = row.tokens, True, row.segments
    origin = np.full((self.max_length, 2), -1)
    origin[columns] = row.origin
    return example, origin

  def _prepare(self, raw: dict[str, Any], index: int) -> Example:
    question = self._question(raw, index)
    rows = [self._padded(row) for row in self._rows(question)]
    spans = [span_in(question, origin) for _, origin in rows]
    number = next((number for number, span in enumerate(spans) if span is not None), 0)
    return with_span(rows[number][0], spans[number])


def span_in(question: Question, origin: np.ndarray) -> tuple[int, int] | None:
  """The first and the last token of a question's first answer in a window; None: the window doesn't hold all of it.

  origin: int [length, 2], as of `QuestionAnswers.windows`.
  """
  for text, first in question.answers[:1]:
    first = question.context.find(text) if first < 0 else first
    covered = np.flatnonzero((origin[:, 0] >= 0) & (origin[:, 0] < first + len(text)) & (origin[:, 1] > first))
    if len(covered) and origin[covered[0], 0] <= first and origin[covered[-1], 1] >= first + len(text):
      return int(covered[0]), int(covered[-1])
  return None


def with_span(row: Example, span: tuple[int, int] | None) -> Example:
  """The row with `start` and `end`; without an answer both are its first token, which stands for there being none."""
  start, end = (int(row["valid"].argmax()),) * 2 if span is None else span
  return {**row, "start": np.asarray(start, np.int32), "end": np.asarray(end, np.int32)}


def answers_of(value: Any, what: str) -> list[tuple[str, int]]:
  """Parses answers in any of the forms of `question_answers`, dropping empty ones.

  >>> answers_of({"text": ["Paris"], "answer_start": [4]}, "record 0"), answers_of("", "record 1")
  ([('Paris', 4)], [])
  """
  value = value.tolist() if isinstance(value, np.ndarray) else value
  value = utf8(value, what)
  if value is None:
    return []
  if isinstance(value, Mapping):
    texts, starts = (value.get(name) for name in ("text", "answer_start"))
    listed = lambda x: [] if x is None else [x] if isinstance(x, str | bytes | int | np.integer) else list(x)
    texts, starts = listed(texts), listed(starts)
    pairs = list(zip(texts, starts or [-1] * len(texts)))
  elif isinstance(value, list | tuple):
    return [pair for entry in value for pair in answers_of(entry, what)]
  else:
    pairs = [(value, -1)]
  pairs = [(utf8(text, what), start) for text, start in pairs]
  if not all(isinstance(text, str) for text, _ in pairs):
    raise BadRecord(f"{what} is {shown(value, 80)}. It must be answers as SQuAD has them, or texts.")
  return [(text, int(start)) for text, start in pairs if text.strip()]
