"""Evaluates a model's folder on a table: `zoo.evaluate_model`, and the command's --model --task --data."""

import inspect
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh

from zoo.config.registry import lookup, names, takes
from zoo.data.bad_records import first_good_record, policy
from zoo.data.sources import Source, open_source
from zoo.data.sources.splits import NoSplit
from zoo.errors import UserError, did_you_mean, setting_up, shown
from zoo.evaluate import built, run
from zoo.evaluate.artifacts import write_json, write_text
from zoo.evaluate.columns import find_columns, parse_columns
from zoo.evaluate.model_kinds import described, model_kind
from zoo.evaluate.tasks import Subject, Task, check_fits, find_task
from zoo.hub.ids import folder_of
from zoo.hub.labels import class_names_in
from zoo.storage import as_path, is_remote

SPLITS = ("test", "validation", "train")  # Default: the first existing one.
SUPPLIED = (
  "model",
  "data",
  "file",
  "generate",
  "embedder",
  "stated",
  "spoken",
  "processor",
  "source",
  "split",
  "data_dir",
  "name",
  "augment",
)


class Evaluation(NamedTuple):
  """A prepared evaluation.

  Attributes:
    evaluate: (params, folder, step) -> metrics.
    params: the model's.
    about: metadata of the results: model, task, data, columns ...
    task: its name.
  """

  evaluate: Callable[..., dict[str, float]]
  params: Any
  about: dict[str, Any]
  task: str

  def __call__(
    self, folder: str | os.PathLike | None = None, note: Callable[[str], Any] | None = None
  ) -> dict[str, float]:
    """Runs it -> {metric: float}; writes evaluation.json, evaluation.txt and the evaluator's files to `folder`."""
    head = "\n".join(f"{name:<8} {_said(value)}" for name, value in self.about.items())
    tables: list[str] = []
    if note is not None:
      note(head)
    results = run({self.task: self.evaluate}, self.params, folder, note=tables.append)
    metrics = {name.removeprefix(f"eval/{self.task}/"): value for name, value in results.items()}
    if note is not None:
      note("\n".join(tables))
    write_json(folder, "evaluation.json", {**self.about, **metrics})
    write_text(folder, "evaluation.txt", "\n\n".join([head, *tables]))
    return metrics


def _said(value: Any) -> str:
  return ", ".join(f"{name} = {field}" for name, field in value.items()) if isinstance(value, Mapping) else str(value)


def evaluate_model(
  model: Any,
  *,
  task: str,
  data: str,
  split: str | None = None,
  data_dir: str | None = None,
  columns: str | Mapping[str, str] | None = None,
  folder: str | os.PathLike | None = None,
  head: str | None = None,
  dtype: Any = None,
  mesh: Mesh | Mapping[str, int] | None = None,
  strategy: str | list = "replicated",
  ignore: Collection[str] = (),
  note: Callable[[str], Any] | None = None,
  **options: Any,
) -> dict[str, float]:
  """Measures a model on data -> {metric: float}.

  Tokenizer, length, image preprocessing, class names and generation settings come from the model's folder; columns are
  guessed by common names. The choices are passed to `note`, and written to evaluation.json.

  Args:
    model: a folder, or a hub id, that `zoo.load` reads; or (model, params).
    task: a file of zoo/evaluate/tasks, e.g. "classification"; docs/evaluation.md lists them.
    data: KIND:WHERE, see `zoo.data.sources.open_source`: "jsonl:reviews.jsonl", "images:photos".
    split: in TFDS's syntax; by default the first existing one of test, validation and train.
    data_dir: as in `open_source`.
    columns: {"text": "review"} or "text=review,label=stars": fields of the data for columns of the task; "none" drops
      an optional one.
    folder: output folder for evaluation.json, evaluation.txt and the evaluator's own files; None: no files.
    head, dtype, mesh, strategy, ignore: as in `zoo.load`.
    note: called with a description, and with the table of results; `print`, for instance.
    **options: of the task's evaluator and of its data pipeline: batch_size, max_length, templates ...

  Raises:
    UserError: the task does not fit the model, a column or an option is unknown, or labels are not the model's.

  >>> import json, jax, zoo
  >>> model = zoo.build("gpt", vocab_size=260, max_length=16, dim=8, depth=1, num_heads=2)
  >>> params = model.init(jax.random.key(0), *model.example())["params"]
  >>> _ = Path("texts.jsonl").write_text(json.dumps({"text": "We the people"}))
  >>> metrics = evaluate_model((model, params), task="perplexity", data="jsonl:texts.jsonl", tokenizer="bytes")
  >>> sorted(metrics)
  ['bits_per_byte', 'loss', 'perplexity', 'tokens']
  """
  with setting_up():
    loading = {"head": head, "dtype": dtype, "mesh": mesh, "strategy": strategy, "ignore": ignore}
    evaluation = prepare(model, task, data, split, data_dir, columns, loading, options)
  return evaluation(folder, note)


def prepare(
  model: Any,
  task: str,
  data: str,
  split: str | None,
  data_dir: str | None,
  columns: str | Mapping[str, str] | None,
  loading: Mapping[str, Any],
  options: Mapping[str, Any],
) -> Evaluation:
  """Prepares an evaluation, so that mistakes show early; arguments as in `evaluate_model`."""
  entry = find_task(task)
  chosen = parse_columns(columns)
  source, split = open_split(data, split, data_dir)
  subject, offers, options = _subject(model, entry, loading, dict(options))
  check_fits(task, subject)
  record = first_good_record(source, policy(options.get("bad_records", "stop")), lambda record, index: None)
  fields = find_columns(task, entry.columns, chosen, record, source.name, subject.kind.reads)
  place = {"source": data, "split": split, **({} if data_dir is None else {"data_dir": data_dir})}
  section = _placed(entry.section(subject, fields), place)
  evaluator = {"name": entry.evaluator, **entry.options(subject)}
  train = {key: options.pop(key, None) for key in ("train_data", "train_split")}
  _set(task, entry, section, evaluator, options)
  if "train_data" in inspect.signature(lookup("evaluate", entry.evaluator)).parameters:
    evaluator |= _train(task, entry, section, place, train)
  elif any(value is not None for value in train.values()):
    raise UserError(f"{task} trains nothing. Leave out train_data and train_split.")
  if "file" in inspect.signature(lookup("evaluate", entry.evaluator)).parameters:
    evaluator.setdefault("file", task)
  evaluate = built({**evaluator, "data": section}, subject.model, offers)
  about: dict[str, Any] = {
    "model": f"{described(subject.model)}{'' if subject.folder is None else f', {subject.folder}'}",
    "task": task,
    "data": f"{source.name}, {len(source)} records",
    "columns": fields,
  }
  if "classes" in section:
    about["classes"] = dict(enumerate(section["classes"]))
  if stated := {**offers.get("stated", {}), **{name: section[name] for name in ("prefix",) if name in section}}:
    about["stated"] = stated
  return Evaluation(evaluate, subject.params, about, task)


def open_split(data: str, split: str | None, data_dir: str | None) -> tuple[Source, str]:
  """Opens the source -> it and its split: the requested one, else the first of SPLITS that it has."""
  for name in (split,) if split is not None else SPLITS[:-1]:
    try:
      return open_source(data, name, data_dir), name
    except NoSplit:
      if split is not None:
        raise
  return open_source(data, SPLITS[-1], data_dir), SPLITS[-1]


def _subject(
  model: Any, entry: Task, loading: Mapping[str, Any], options: dict[str, Any]
) -> tuple[Subject, Mapping[str, Any], dict[str, Any]]:
  """The subject, further arguments of the evaluator, and the remaining options."""
  tokenizer, classes = options.pop("tokenizer", None), options.pop("classes", None)
  folder: Any = None
  offers: Mapping[str, Any] = {}
  if isinstance(model, str | os.PathLike):
    folder = as_path(model) if is_remote(model) else folder_of(model)
    model, params, offers = entry.opens(folder, loading)
  elif isinstance(model, tuple) and len(model) == 2:
    model, params = model
  else:
    raise UserError(f"model is {shown(model)}. It must be a folder, a hub id, or (model, params).")
  num_classes = model_kind(model).num_classes
  if classes is None and num_classes is not None and isinstance(folder, Path):
    classes = class_names_in(folder, num_classes)
  if classes is not None and len(classes) != num_classes:
    way_out = (
      f"Name its {num_classes}, in the order of its logits, or leave them out" if num_classes else "Leave them out"
    )
    raise UserError(
      f"classes has {len(classes)} names, {shown(', '.join(map(str, classes)))}, the model {num_classes or 'no'} "
      f"classes. {way_out}."
    )
  return Subject(model, params, folder, classes, tokenizer), offers, options


def _placed(section: dict[str, Any], place: Mapping[str, Any]) -> dict[str, Any]:
  """Sets the source in a section, or in the nested one that reads a source."""
  if isinstance(section.get("data"), Mapping):
    return {**section, "data": _placed(section["data"], place)}
  return {**section, **place}


def _set(task: str, entry: Task, section: dict, evaluator: dict, options: Mapping[str, Any]) -> None:
  """Puts each option into the section that takes it: of data, or of the evaluator."""
  sections = [section]
  while isinstance(sections[-1].get("data"), Mapping):
    sections.append(sections[-1]["data"])
  hidden = (*SUPPLIED, "class_names")  # For models whose classes have names.
  offered = [takes(lookup("data", one["name"]), hidden) for one in sections]
  of_evaluator = takes(lookup("evaluate", entry.evaluator), SUPPLIED)
  for name, value in options.items():
    if name.endswith("_field") or not any(name in takes_these for takes_these in (*offered, of_evaluator)):
      has = sorted({*of_evaluator, *(one for some in offered for one in some if not one.endswith("_field"))})
      raise UserError(f"{task} takes no '{name}'.{did_you_mean(name, has)} It takes: {', '.join(has)}.")
    for one, takes_these in zip(sections, offered, strict=True):
      if name in takes_these:
        one[name] = value
    if name in of_evaluator:
      evaluator[name] = value


def _train(task: str, entry: Task, section: Mapping, place: Mapping, train: Mapping[str, Any]) -> dict[str, Any]:
  """The section of the data that an evaluator trains on, or counts; {} if it is optional and not requested."""
  needed = inspect.signature(lookup("evaluate", entry.evaluator)).parameters["train_data"].default is inspect._empty
  if not needed and train["train_data"] is None and train["train_split"] is None:
    return {}
  where = {"source": train["train_data"] or place["source"], "split": train["train_split"] or "train"}
  if where == {name: place[name] for name in where}:
    raise UserError(
      f"{task} would train on what it tests on, {place['source']}[{place['split']}]. Say split=, train_split= or "
      "train_data=: split='train[80%:]', train_split='train[:80%]'."
    )
  return {"train_data": _placed(dict(section), {**place, **where})}


def option_names(task: str) -> list[str]:
  """Options of `zoo.evaluate_model` for a task, for all models."""
  entry = find_task(task)
  pipelines = {name for pipeline in names("data") for name in takes(lookup("data", pipeline), SUPPLIED)}
  everywhere = {*takes(lookup("evaluate", entry.evaluator), SUPPLIED), *pipelines}
  return sorted({"train_data", "train_split", *(name for name in everywhere if not name.endswith("_field"))})
