"""How each task is learned: which head, which loss, and which metric of its evaluator chooses the best checkpoint."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from zoo.errors import UserError, did_you_mean
from zoo.evaluate.tasks import Subject, Task, find_task

Section = Callable[[Subject, Mapping[str, str]], dict[str, Any]]


class Training(NamedTuple):
  """How a task is learned.

  Attributes:
    task: of zoo/evaluate/tasks: its columns, its pipeline of data and its evaluator.
    head: of the families of `zoo/convert`; None: the one that the folder's model has.
    objective: the config's section.
    best, best_mode: the metric of the evaluator, and whether it is to be "max" or "min".
    labels: the column that holds names or numbers of classes; None: there are no classes.
    num_classes: of a task without classes whose head has outputs all the same.
  """

  task: str
  head: str | None
  objective: Mapping[str, Any]
  best: str
  best_mode: str = "max"
  labels: str | None = None
  num_classes: int | None = None

  @property
  def measured(self) -> Task:
    return find_task(self.task)


TRAININGS = {
  "classification": Training("classification", "classify", {"name": "classify"}, "accuracy", labels="label"),
  "regression": Training("regression", "classify", {"name": "regress"}, "mse", "min", num_classes=1),
  "token_classification": Training(
    "token_classification", "classify_tokens", {"name": "classify_tokens"}, "accuracy", labels="tags"
  ),
  "question_answering": Training("question_answering", "question_answering", {"name": "find_answers"}, "f1"),
  "multiple_choice": Training("multiple_choice", "multiple_choice", {"name": "classify"}, "accuracy"),
  "causal_lm": Training("perplexity", None, {"name": "causal_lm"}, "loss", "min"),
}


def find_training(name: str) -> Training:
  """The training of that name. UserError, listing them, if there is none."""
  if name not in TRAININGS:
    near = did_you_mean(name, TRAININGS)
    raise UserError(f"config.task is '{name}'.{near} It must be one of: {', '.join(TRAININGS)}.")
  return TRAININGS[name]
