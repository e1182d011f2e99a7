"""Every window of every text that questions are about: batches of `tokens`, `valid`, `start`, `end`, to learn from."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.data.bad_records import BadRecord, too_many, unskipped
from zoo.data.pipeline import Example, Records
from zoo.data.question_answers import QuestionAnswers, question_answers, span_in, with_span
from zoo.errors import UserError


def answer_windows(
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
  bad_records: str | Mapping = "stop",
) -> "AnswerWindows":
  """As `question_answers`, whose options it has, but an example is a window: a long text makes several.

  A window that doesn't hold the whole answer has none, and its `start` and `end` are its first token, as in the usual
  recipe for SQuAD. All texts are tokenised once to count their windows.

  `questions`: the records of whole questions, as of `question_answers`. `info`: source, tokenizer, vocab_size,
  max_length.
  """
  options: dict[str, Any] = {"tokenizer": tokenizer, "max_length": max_length, "stride": stride}
  options |= {"question_field": question_field, "context_field": context_field, "answers_field": answers_field}
  return AnswerWindows(question_answers(source, split, data_dir=data_dir, bad_records=bad_records, **options))


class AnswerWindows(Records):
  """See `answer_windows`."""

  def __init__(self, questions: QuestionAnswers):
    self.questions, self.info = questions, questions.info
    pairs, errors, policy = [], [], questions.policy
    for question in range(len(questions)):
      try:
        pairs += [(question, window) for window in range(questions.count(question))]
      except BadRecord as error:
        if not policy.skips:
          raise unskipped(error) from error
        errors.append(str(error))
    if len(errors) > policy.allowed(len(questions)) or not pairs:
      raise UserError(too_many(errors, len(errors), self.name, len(questions), policy))
    self.bad = (*questions.bad, *errors)
    self.index = np.array(pairs)  # int [windows, 2]: the question of each, and which of its windows it is.

  def __len__(self) -> int:
    return len(self.index)

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    question_index, window = self.index[index].tolist()
    question, rows = self.questions.windows(question_index)
    row, origin = rows[window]
    return with_span(row, span_in(question, origin))
