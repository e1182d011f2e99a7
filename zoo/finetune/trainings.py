"""Training recipes of tasks: head, objective, and the metric that chooses the best checkpoint."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from zoo.errors import UserError, did_you_mean
from zoo.evaluate.columns import Column
from zoo.evaluate.model_kinds import ModelKind
from zoo.evaluate.tasks import Subject, Task, find_task
from zoo.hub.tables import NO_HEAD


def as_measured(section: dict[str, Any], subject: Subject) -> dict[str, Any]:
  """The section of data of a task's evaluator: most tasks train on examples of the same form."""
  return section


def with_tokens(section: dict[str, Any], subject: Subject) -> dict[str, Any]:
  """`as_measured` for pairs of texts, which are evaluated as strings, in tokens."""
  tokens = {"tokenizer": subject.tokenizer_name(), "max_length": subject.text_length()}
  return {**tokens, **section, "name": "compared_texts"}


def as_windows(section: dict[str, Any], subject: Subject) -> dict[str, Any]:
  """`as_measured` for questions, with each window of a long context as an example."""
  return {**section, "name": "answer_windows"}


def with_targets(section: dict[str, Any], subject: Subject) -> dict[str, Any]:
  """`as_measured` for generation tasks, with the target in every row."""
  if section["name"] != "prompts":
    return section
  return {**{name: value for name, value in section.items() if name != "after_end"}, "name": "framed_pairs"}


def with_transcripts(section: dict[str, Any], subject: Subject) -> dict[str, Any]:
  """The same for speech, with the tokens of the transcript in every row."""
  return {**section, "name": "audio_text", "target_length": subject.model.max_length}


def answers(kind: ModelKind) -> bool:
  """Whether a model is an encoder-decoder of text."""
  return kind.reads == "texts" and kind.does == "answer"


def makes_vectors(kind: ModelKind) -> bool:
  """Whether a model makes vectors of texts, and nothing else."""
  return kind.reads == "texts" and kind.does == "encode"


class Training(NamedTuple):
  """Training recipe of a task.

  Attributes:
    task: the task of zoo/evaluate/tasks, with its columns, data pipeline and evaluator.
    head: name of a head of `zoo/convert`; None: that of the folder's model; NO_HEAD: none.
    objective: the config's section.
    best, best_mode: the metric of the evaluator for the best checkpoint, and "max" or "min".
    labels: the column of class names or indices; None: there are no classes.
    num_classes: number of outputs for a task without classes.
    rows: (section of the evaluator's data, subject) -> that of the training data.
    fitting, needing: kinds of models that fit, and the requirement for messages; None: as in the task.
    filled: columns that are optional in evaluation but required in training.
  """

  task: str
  head: str | None
  objective: Mapping[str, Any]
  best: str
  best_mode: str = "max"
  labels: str | None = None
  num_classes: int | None = None
  rows: Callable[[dict[str, Any], Subject], dict[str, Any]] = as_measured
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
    """Whether a kind of model can be trained on it."""
    return (self.fitting or self.measured.fits)(kind)

  def section(self, subject: Subject, columns: Mapping[str, str]) -> dict[str, Any]:
    """(subject, role -> field) -> the section of data, without source and split."""
    return self.rows(dict(self.measured.section(subject, columns)), subject)


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


def _encoding(task: str, objective: str, best: str) -> Training:
  needing = "an encoder of texts"
  return Training(task, NO_HEAD, {"name": objective}, best, rows=with_tokens, fitting=makes_vectors, needing=needing)


TRAININGS = {
  "classification": Training("classification", "classify", {"name": "classify"}, "accuracy", labels="label"),
  "regression": Training("regression", "classify", {"name": "regress"}, "mse", "min", num_classes=1),
  "token_classification": Training(
    "token_classification", "classify_tokens", {"name": "classify_tokens"}, "accuracy", labels="tags"
  ),
  "question_answering": Training(
    "question_answering", "question_answering", {"name": "find_answers"}, "f1", rows=as_windows
  ),
  "multiple_choice": Training("multiple_choice", "multiple_choice", {"name": "classify"}, "accuracy"),
  "search": _encoding("search", "multiple_negatives", "mrr10"),
  "similarity": _encoding("similarity", "cosine_similarity", "spearman"),
  "speech": Training("speech", None, {"name": "seq2seq"}, "wer", "min", rows=with_transcripts),
  "causal_lm": Training("perplexity", None, {"name": "causal_lm"}, "loss", "min"),
  "seq2seq": _writing("generation", "chrf"),
  "summarisation": _writing("summarisation", "rougeL"),
  "translation": _writing("translation", "chrf"),
}


def find_training(name: str) -> Training:
  """Finds a training by name. UserError, listing the names, if there is none."""
  if name not in TRAININGS:
    near = did_you_mean(name, TRAININGS)
    raise UserError(f"config.task is '{name}'.{near} It must be one of: {', '.join(TRAININGS)}.")
  return TRAININGS[name]
