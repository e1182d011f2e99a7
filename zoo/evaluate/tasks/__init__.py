"""Tasks of `zoo.evaluate_model`: columns of the table, models that fit, and evaluator.

One file per task, `zoo/evaluate/tasks/NAME.py`, with a `Task` of that name, which registers it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from zoo.config.registry import lookup, names
from zoo.data.tokenizers import tokenizer as open_tokenizer
from zoo.data.tokenizers.base import Tokenizer
from zoo.data.tokenizers.folder import Published
from zoo.errors import UserError, did_you_mean
from zoo.evaluate.columns import Column
from zoo.evaluate.model_kinds import ModelKind, described, model_kind
from zoo.hub.files import is_published
from zoo.hub.tokenizers import local_name
from zoo.saving import MODEL, load
from zoo.storage import is_remote
from zoo.train.model_data import defaults

LONGEST = 512  # Maximum tokens of a row, for models without a limit.


class Opened(NamedTuple):
  """A model, its parameters, and further arguments of the evaluator that no config has."""

  model: Any
  params: Any
  offers: Mapping[str, Any] = {}


def open_model(folder: Any, loading: Mapping[str, Any]) -> Opened:
  """Loads a folder with `zoo.load`."""
  return Opened(*load(folder, **loading))


class Subject(NamedTuple):
  """The model under evaluation.

  Attributes:
    model, params: from the zoo; params may be sharded.
    folder: that they were loaded from; None: they were passed directly.
    classes: names of the model's classes, if its files have them.
    tokenizer: name or path of a tokenizer to use instead of the model's own.
  """

  model: Any
  params: Any
  folder: Any = None
  classes: list[str] | None = None
  tokenizer: str | None = None

  @property
  def kind(self) -> ModelKind:
    return model_kind(self.model)

  def tokenizer_name(self) -> str:
    """Name or path of the tokenizer; UserError if there is none."""
    name = self.tokenizer or defaults(self.model).get("tokenizer")
    if name is None:
      raise UserError(
        f"The {described(self.model)} carries no tokenizer. Fetch its files, or say tokenizer=NAME OR PATH."
      )
    return local_name(name)

  def open_tokenizer(self) -> Tokenizer:
    return open_tokenizer(self.tokenizer_name())

  @property
  def published(self) -> bool:
    """Whether the model's files are local and in the hub's layout; for a model passed directly, its tokenizer's."""
    if self.folder is None:
      return isinstance(self.open_tokenizer(), Published)
    return not is_remote(self.folder) and not (self.folder / MODEL).exists() and is_published(self.folder)

  def text_length(self) -> int:
    """Maximum tokens of a text: the limit of the model and its tokenizer, or LONGEST if neither has one."""
    encoder = getattr(self.model, "encoder", self.model)
    limits = [getattr(encoder, "max_length", None), self.open_tokenizer().max_length]
    return min((limit for limit in limits if limit), default=LONGEST)

  def class_names(self) -> list[str]:
    """Names of the model's classes, by default LABEL_0 ..."""
    return self.classes or [f"LABEL_{number}" for number in range(self.kind.num_classes or 0)]


class Task(NamedTuple):
  """An evaluation task on a table.

  Attributes:
    does: description, for the documentation.
    needs: requirement on a model, for messages: "a head that classifies texts or images".
    fits: whether a kind of model fits.
    columns: role -> Column.
    evaluator: name of an evaluator of zoo/evaluate.
    section: (subject, role -> field) -> the evaluator's section of data, without source, split and data_dir.
    metrics: the main metrics, for the documentation.
    options: (subject) -> options of the evaluator that come from the model.
    opens: (folder, keywords of `zoo.load`) -> the model.
  """

  does: str
  needs: str
  fits: Callable[[ModelKind], bool]
  columns: Mapping[str, Column]
  evaluator: str
  section: Callable[[Subject, Mapping[str, str]], dict[str, Any]]
  metrics: str
  options: Callable[[Subject], dict[str, Any]] = lambda subject: {}
  opens: Callable[[Any, Mapping[str, Any]], Opened] = open_model


def task_names() -> list[str]:
  """Names of all tasks."""
  return names("evaluate.tasks")


def find_task(name: str) -> Task:
  """Finds a task by name. UserError, listing the names, if there is none."""
  if name not in task_names():
    near = did_you_mean(str(name), task_names())
    raise UserError(f"There is no task '{name}'.{near} There are: {', '.join(task_names())}.")
  task: Any = lookup("evaluate.tasks", name)
  return task


def check_fits(name: str, subject: Subject) -> None:
  """UserError unless the task `name` fits the model; the message lists the tasks that do."""
  if find_task(name).fits(subject.kind):
    return
  fitting = [other for other in task_names() if find_task(other).fits(subject.kind)]
  which = f"It fits: {', '.join(fitting)}." if fitting else "No task fits it."
  if subject.folder is not None and subject.published:
    which = f"{which} Another head of its weights is loaded with head=NAME."
  raise UserError(f"{name} needs {find_task(name).needs}. This is a {described(subject.model)}. {which}")


def fields(columns: Mapping[str, str], **options: str) -> dict[str, str]:
  """Options of a pipeline for its fields: option=role -> {option: field}, without missing roles."""
  return {option: columns[role] for option, role in options.items() if role in columns}
