"""How each task is learned: which head, which loss, and which metric of its evaluator chooses the best checkpoint."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from zoo.errors import UserError, did_you_mean
from zoo.evaluate.columns import Column
from zoo.evaluate.model_kinds import ModelKind
from zoo.evaluate.tasks import Subject, Task, find_task


def as_measured(section: dict[str, Any]) -> dict[str, Any]:
  """The section of data of a task's evaluator: most tasks are learned from rows as they are measured on."""
  return section


def with_targets(section: dict[str, Any]) -> dict[str, Any]:
  """The same of a task whose models write, with what to write in every row."""
  if section["name"] != "prompts":
    return section
  return {**{name: value for name, value in section.items() if name != "after_end"}, "name": "framed_pairs"}


def answers(kind: ModelKind) -> bool:
  """Whether a model reads a text and writes another, of its own tokens."""
  return kind.reads == "texts" and kind.does == "answer"


class Training(NamedTuple):
  """How a task is learned.

  Attributes:
    task: of zoo/evaluate/tasks: its columns, its pipeline of data and its evaluator.
    head: of the families of `zoo/convert`; None: the one that the folder's model has.
    objective: the config's section.
    best, best_mode: the metric of the evaluator, and whether it is to be "max" or "min".
    labels: the column that holds names or numbers of classes; None: there are no classes.
    num_classes: of a task without classes whose head has outputs all the same.
    rows: the section of the evaluator's data -> that of the data to learn from.
    fitting, needing: which kinds of models can learn it, and what to say of others; None: those that are measured.
    filled: columns that a row to learn from must have, though one to measure on need not.
  """

  task: str
  head: str | None
  objective: Mapping[str, Any]
  best: str
  best_mode: str = "max"
  labels: str | None = None
  num_classes: int | None = None
  rows: Callable[[dict[str, Any]], dict[str, Any]] = as_measured
  fitting: Callable[[ModelKind], bool] | None = None
  needing: str | None = None
  filled: tuple[str, ...] = ()

  @property
  def measured(self) -> Task:
    return find_task(self.task)

  @property
  def needs(self) -> str:
    return self.needing or self.measured.needs

  @property
  def columns(self) -> dict[str, Column]:
    columns = self.measured.columns
    return {role: column._replace(needed=column.needed or role in self.filled) for role, column in columns.items()}

  def fits(self, kind: ModelKind) -> bool:
    """Whether a kind of model can learn it."""
    return (self.fitting or self.measured.fits)(kind)

  def section(self, subject: Subject, columns: Mapping[str, str]) -> dict[str, Any]:
    """(subject, role -> field) -> the section of data, without source and split."""
    return self.rows(dict(self.measured.section(subject, columns)))


def _writing(task: str, best: str) -> Training:
  return Training(
    task,
    None,
    {"name": "seq2seq"},
    best,
    rows=with_targets,
    fitting=answers,
    needing="a model that reads a text and writes another",
    filled=("target",),
  )


TRAININGS = {
  "classification": Training("classification", "classify", {"name": "classify"}, "accuracy", labels="label"),
  "regression": Training("regression", "classify", {"name": "regress"}, "mse", "min", num_classes=1),
  "token_classification": Training(
    "token_classification", "classify_tokens", {"name": "classify_tokens"}, "accuracy", labels="tags"
  ),
  "question_answering": Training("question_answering", "question_answering", {"name": "find_answers"}, "f1"),
  "multiple_choice": Training("multiple_choice", "multiple_choice", {"name": "classify"}, "accuracy"),
  "causal_lm": Training("perplexity", None, {"name": "causal_lm"}, "loss", "min"),
  "seq2seq": _writing("generation", "chrf"),
  "summarisation": _writing("summarisation", "rougeL"),
  "translation": _writing("translation", "chrf"),
}


def find_training(name: str) -> Training:
  """The training of that name. UserError, listing them, if there is none."""
  if name not in TRAININGS:
    near = did_you_mean(name, TRAININGS)
    raise UserError(f"config.task is '{name}'.{near} It must be one of: {', '.join(TRAININGS)}.")
  return TRAININGS[name]
