"""Extractive question answering: exact match and F1, with unanswerable questions (SQuAD 1.1 and 2.0)."""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from zoo.data.bad_records import without_bad
from zoo.errors import UserError
from zoo.evaluate.answer_scores import score_answer
from zoo.evaluate.artifacts import write_text
from zoo.evaluate.forward import check_defined, fetch, options_of, put, records_of, trimmed
from zoo.objectives.objective import apply
from zoo.sharding import mesh_of


class Answer(NamedTuple):
  """The best span so far over the windows of a question, its score, and the score of no answer."""

  text: str = ""
  score: float = -np.inf
  null: float = np.inf


def question_answering(
  model: Any,
  *,
  data: Mapping | Any,
  batch_size: int = 16,
  longest_answer: int = 30,
  threshold: float = 0.0,
  examples: int = 20,
  file: str = "question_answering",
) -> Callable:
  """Evaluator: (params, folder=None, step=None) -> {"exact_match", "f1", "questions", ...}.

  Long contexts are read in windows. The answer is the span of at most `longest_answer` tokens whose sum of start and
  end logits is largest over all windows. If the data have unanswerable questions, the model predicts no answer if the
  smallest sum at the first token of a window exceeds that of the span by more than `threshold`. Then the scores of
  questions with and without an answer are also returned: exact_match_answered, f1_answered, exact_match_unanswered.
  For the comparison see `zoo.evaluate.answer_scores`. Writes `file`.txt: questions, answers and predictions.

  Args:
    model: returns "start" and "end", float [batch, length].
    data: section of the pipeline `question_answers`, or `answer_windows`, or its records: `windows(index)`.
    batch_size: windows per batch.
    longest_answer: maximum length of an answer in tokens.
    threshold: as above.
    examples: number of examples in the file.
    file: its name, without extension.
  """
  records = records_of(data, model, "question_answering")
  records = without_bad(records.questions) if hasattr(records, "questions") else records
  if not hasattr(records, "windows"):
    raise UserError("question_answering needs data of questions. Use the pipeline question_answers.")
  if longest_answer < 1:
    raise UserError(f"longest_answer is {longest_answer}. It must be at least 1.")

  @jax.jit
  def forward(params: Any, batch: dict) -> dict:
    outputs = apply(model, params, batch["tokens"], **options_of(model, batch))
    if "start" not in outputs:
      raise UserError(f"question_answering needs a model with a start and an end; this one gives {', '.join(outputs)}.")
    return {"start": outputs["start"], "end": outputs["end"]}

  def scored(params: Any) -> Iterator[tuple[int, Any, "Window"]]:
    """Runs the model: (index, question, window) of every window, computed in batches of `batch_size`."""
    waiting: list[tuple[int, Any, dict, np.ndarray]] = []
    for index in range(len(records)):
      question, rows = records.windows(index)
      waiting += [(index, question, *row) for row in rows]
      while len(waiting) >= batch_size or waiting and index == len(records) - 1:
        chosen, waiting = waiting[:batch_size], waiting[batch_size:]
        yield from computed(params, chosen)

  def computed(params: Any, chosen: list) -> Iterator[tuple[int, Any, "Window"]]:
    rows = [row for _, _, row, _ in chosen]
    rows += rows[:1] * (batch_size - len(rows))  # Padded, so that one program is compiled.
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    batch["column"] = np.broadcast_to(np.arange(batch["tokens"].shape[1]), batch["tokens"].shape)
    batch = trimmed(batch)
    columns = batch.pop("column")[0]
    results = {name: fetch(x) for name, x in forward(params, put(batch, mesh_of(params))).items()}
    check_defined(results, "question_answering")
    for number, (index, question, _, origin) in enumerate(chosen):
      start, end = (results[name][number].astype(np.float64) for name in ("start", "end"))
      yield index, question, Window(start, end, origin[columns], int(batch["valid"][number].argmax()))

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    sums, listed, before = Sums(), [], None
    for index, question, window in scored(params):
      if before is not None and index != before[0]:
        listed += sums.add(*before[1:], threshold, len(listed) < examples)
        before = None
      answer = before[2] if before is not None else Answer()
      answer = better(answer, window, question.context, longest_answer)
      before = (index, question, answer)
    if before is not None:
      listed += sums.add(*before[1:], threshold, len(listed) < examples)
    head = f"longest answer {longest_answer} tokens" + ("" if step is None else f", step {step}")
    write_text(folder, f"{file}.txt", "\n\n".join([head, *listed]))
    return sums.metrics()

  return evaluate


class Window(NamedTuple):
  """A model's outputs for one window.

  Attributes:
    start, end: float [length], logits of each token.
    origin: int [length, 2], the character span of each token in the context; -1 outside of it.
    first: index of the first token, which means no answer.
  """

  start: np.ndarray
  end: np.ndarray
  origin: np.ndarray
  first: int


def better(best: Answer, window: Window, context: str, longest: int) -> Answer:
  """The better of an answer and the best span of another window, with the lower no-answer score.

  Args:
    best: the best so far.
    window: the other window.
    context: the full text.
    longest: maximum tokens of an answer.
  """
  start, end, origin, first = window
  inside = origin[:, 0] >= 0
  null = min(best.null, float(start[first] + end[first]))
  sums = np.full((longest, len(start)), -np.inf)
  for size in range(min(longest, len(start))):
    both = inside[: len(start) - size] & inside[size:]
    sums[size, : len(start) - size] = np.where(both, start[: len(start) - size] + end[size:], -np.inf)
  size, token = np.unravel_index(int(sums.argmax()), sums.shape)
  score = float(sums[size, token])
  if score <= best.score:
    return best._replace(null=null)
  return Answer(context[origin[token, 0] : origin[token + size, 1]], score, null)


class Sums:
  """Sums of scores, with and without the option to predict no answer."""

  def __init__(self):
    self.answered = np.zeros(3)  # Exact matches, F1, number of questions with an answer, if the model must answer.
    self.free = np.zeros((2, 3))  # The same if it may predict no answer: of questions with an answer, and without.

  def add(self, question: Any, answer: Answer, threshold: float, lists: bool) -> list[str]:
    """Adds a question; returns it as text if it `lists` them."""
    references = [text for text, _ in question.answers]
    prediction = "" if answer.null - answer.score > threshold else answer.text
    self.free[int(not references)] += [*score_answer(prediction, references), 1]
    if references:
      self.answered += [*score_answer(answer.text, references), 1]
    answers = " | ".join(dict.fromkeys(references)) or "(none)"
    return [f"question  {question.question}\nanswers   {answers}\nmodel     {answer.text}"] if lists else []

  def metrics(self) -> dict[str, float]:
    """Mean scores; if every question has an answer, the model must answer."""
    exact, f1, questions = self.free.sum(0) if self.free[1, 2] else self.answered
    metrics = {"exact_match": exact / questions, "f1": f1 / questions, "questions": questions}
    if self.free[1, 2]:
      (exact, f1, answered), (none, _, unanswered) = self.free
      metrics |= {"exact_match_answered": exact / answered, "f1_answered": f1 / answered} if answered else {}
      metrics |= {"exact_match_unanswered": none / unanswered, "unanswered": unanswered}
    return {name: float(value) for name, value in metrics.items()}
