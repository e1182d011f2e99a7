"""Completes a config that names a task: `python train.py --config=configs/finetune.py ...`.

Sizes, tokenizer and image preprocessing come from the model's folder; columns, classes and lengths from the data; head,
loss, pipeline, evaluator and the metric of the best checkpoint from the task. Entries of the config take precedence.
The result is a normal config, which a run saves as its config.json.
"""

import contextlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from zoo.build import sizes_of
from zoo.config.loading import without
from zoo.config.registry import build, check_type
from zoo.config.schema import read_init, resolve
from zoo.data.bad_records import BadRecord, first_good_record, policy
from zoo.data.sources import Source, open_source
from zoo.data.sources.splits import NoSplit
from zoo.errors import UserError, setting_up, tell
from zoo.evaluate.columns import find_columns
from zoo.evaluate.entities import are_tags
from zoo.evaluate.model_kinds import described, model_kind
from zoo.evaluate.tasks import Subject
from zoo.finetune.classes import are_those_of, classes_in
from zoo.finetune.models import Origin, last_layer, open_origin, with_head
from zoo.finetune.rates import other_rates
from zoo.finetune.sentences import data_of, sentence_encoder
from zoo.finetune.trainings import Training, find_training
from zoo.hub.files import CONFIG, read_json
from zoo.hub.preprocessing import sound_processor
from zoo.hub.sentence_encoder import encoder_folder
from zoo.hub.tables import NO_HEAD
from zoo.storage import is_remote

HELD_OUT = ("validation", "test")  # The first of these splits that exists chooses the best checkpoint.
TRAINED, KEPT_BACK = "train[:90%]", "train[90%:]"  # Held-out share if there is none.
FEWEST = 5  # Of fewer records a tenth is none.
READ = 1000  # Number of records to count tokens of.
STEP = 8  # Quantile of lengths.


@setting_up()
def with_task(config: Any, note: Callable[[str], Any] = tell) -> Any:
  """Completes a config from its folder and data, and drops `task`; returns configs without a task unchanged.

  Args:
    config: from `zoo.config.loading.load`: `task`, `init` and `data.source` are required.
    note: called with a line for each entry that was set from the folder or the data.

  Raises:
    UserError: the model does not fit the task, a column is missing, or no data are held out.
  """
  if config.get("task") is None:
    return config
  values = resolve(config)
  name = values.pop("task")
  training = find_training(name)
  if not values.get("init"):
    raise UserError(f"config.task={name} starts from a model. Say which: --config.init=FOLDER, or a hub id.")
  if not isinstance(values["data"].get("source"), str):
    raise UserError(f"config.task={name} needs data. Say which: --config.data.source=csv:my.csv.")
  where, fresh, ignore, into = read_init(values["init"])
  if into is not None:
    raise UserError(
      f"config.task={name} trains the model of init; init.into is of a larger one. Leave one of them out."
    )
  folder = pathlib.Path(where).expanduser()
  if not is_remote(where) and encoder_folder(folder) != folder:
    where = str(encoder_folder(folder))
    values["init"] = {**values["init"], "source": where} if isinstance(values["init"], Mapping) else where
  origin, data = open_origin(where, ignore), values["data"]
  source, split, held_out = _splits(data)
  needs = f"{name} needs {training.needs}"
  model = with_head(origin, training.head, training.num_classes, needs)
  if not training.fits(model_kind(model)) and training.labels is None:
    raise UserError(f"{needs}. {origin.folder} is a {described(origin.model)}.")
  columns = _columns(name, training, Subject(model, None, origin.folder, tokenizer=data.get("tokenizer")), source, data)
  classes = _classes(training, source, columns, data)
  keeps_head = origin.head == training.head and (classes is None or are_those_of(classes, origin.classes or []))
  if classes is not None:
    classes = list(origin.classes or []) if keeps_head else classes
    model = with_head(origin, training.head, len(classes), needs)
  elif training.num_classes is not None:
    keeps_head = keeps_head and origin.num_classes == training.num_classes
  subject = Subject(model, None, origin.folder, classes, data.get("tokenizer"))
  if not training.fits(subject.kind):
    raise UserError(f"{needs}; with {len(classes or [])} classes this is a {described(model)}.")
  section = training.section(subject, columns)
  section.pop("cache", None)
  section = _merged(section, {**data, "split": split})
  if training.head == NO_HEAD:
    sentence = sentence_encoder(origin.folder, subject.model, values["objective"], data)
    section = {**section, **data_of(sentence, section, data)}
    values["model"] = {**values["model"], "preprocessing": {"sentence": sentence, **_preprocessing(values)}}
    values["objective"] = {"pooling": sentence["pooling"], **values["objective"]}
  for line in _shortened(section, data, model):
    note(line)
  if section.get("prefix") and "prefix" not in data:
    note(f"prefix: {section['prefix']!r}, by the config.json of {origin.folder}.")

  values["data"] = section
  model_section = values["model"]
  values["model"] = {**model.spec, **model_section}
  values["objective"] = {**training.objective, **values["objective"]}
  if not keeps_head and origin.head == training.head and training.head is not None:
    values["init"] = {"source": where, "fresh": [*fresh, *last_layer(model)], "ignore": list(ignore)}
  _measure(values, name, training, subject, held_out)
  note(f"model: {described(model)}, of the sizes in {origin.folder}.")
  others = other_rates(read_json(origin.folder / CONFIG), sizes_of(model)) if origin.published else {}
  if others and "dropout" not in model_section:
    listed = ", ".join(f"{name}={rate:g}" for name, rate in others.items())
    note(f"dropout: {sizes_of(model)['dropout']:g} throughout; config.json has {listed}. Set --config.model.dropout.")
  note(_head(origin, training, keeps_head, classes))
  note(f"columns: {', '.join(f'{role} = {field}' for role, field in columns.items())}, of {source.name}.")
  note(f"data: {split} is trained on, {held_out or 'nothing'} is held out.")
  return ConfigDict(values).lock()


def _splits(data: Mapping[str, Any]) -> tuple[Source, str, str | None]:
  """The training source, its split, and the held-out split; None: there is none."""
  where, data_dir = data["source"], data.get("data_dir")
  for held_out in HELD_OUT:
    with contextlib.suppress(NoSplit):
      open_source(where, held_out, data_dir)
      break
  else:
    held_out = None if "split" in data else KEPT_BACK
  split = data.get("split", TRAINED if held_out == KEPT_BACK else "train")
  source = open_source(where, split, data_dir)
  if held_out == KEPT_BACK and len(source) < FEWEST:
    try:
      open_source(where, KEPT_BACK, data_dir)
    except UserError as error:
      raise UserError(
        f"{error} Of so few records none is held out: add some, or train on all of them by --config.data.split=train."
      ) from error
  return source, split, held_out


def _columns(
  name: str, training: Training, subject: Subject, source: Source, data: Mapping[str, Any]
) -> dict[str, str]:
  """Role -> field: those set in the section of data, others by their usual names."""
  every = training.columns
  options = _innermost(training.section(subject, {role: role for role in every}))
  roles = {option: role for option, role in options.items() if option.endswith("_field") and role in every}
  chosen = {role: data[option] for option, role in roles.items() if data.get(option) is not None}
  chosen = {role: "+".join(field) if isinstance(field, list) else field for role, field in chosen.items()}
  record = first_good_record(source, policy(data.get("bad_records", "stop")), lambda record, index: None)
  option_of = {role: option for option, role in roles.items()}
  way_out = lambda role: f"which: --config.data.{option_of[role]}=FIELD"
  return find_columns(name, every, chosen, record, source.name, subject.kind.reads, way_out)


def _classes(training: Training, source: Source, columns: Mapping[str, str], data: dict[str, Any]) -> list[str] | None:
  """Class names, from the config or the data; None for a task without classes."""
  if training.labels is None:
    return None
  names = data.pop("class_names", None), data.pop("classes", None)
  names = names[0] or names[1]
  if names:
    check_type("data.class_names", names, list[str])
    return list(names)
  with contextlib.suppress(UserError):  # The full split, including the held-out part.
    source = open_source(data["source"], "train", data.get("data_dir"))
  return classes_in(source, columns[training.labels], several=training.task == "token_classification")


def _innermost(section: Mapping[str, Any]) -> Mapping[str, Any]:
  return _innermost(section["data"]) if isinstance(section.get("data"), Mapping) else section


def _merged(section: dict[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
  """Merges the config's entries into a task's section: into the innermost one, which reads the source."""
  if not isinstance(section.get("data"), Mapping):
    return {**section, **data}
  outer = {name: data[name] for name in ("max_length",) if name in data}
  return {**section, **outer, "data": _merged(section["data"], data)}


def _shortened(section: dict[str, Any], data: Mapping[str, Any], model: Any) -> list[str]:
  """Sets missing lengths to those of the texts, if rows are padded to them -> lines to report."""
  padded = {"max_length": "valid", "target_length": "target_valid"}
  padded = {name: mask for name, mask in padded.items() if name in section and name not in data}
  if not padded or section.keys() & {"stride", "data"}:
    return []
  records = build("data", without(section, "augment", "workers"), offers={"processor": sound_processor(model)})
  count, lines = min(len(records), READ), []
  longest = dict.fromkeys(padded, 1)
  for index in range(count):
    with contextlib.suppress(BadRecord):
      example = records.example(index)
      longest |= {name: max(longest[name], int(example[mask].sum(-1).max())) for name, mask in padded.items()}
  for name, most in longest.items():
    section[name] = min(-(-most // STEP) * STEP, section[name])
    lines.append(f"{name}: {section[name]} tokens; the longest of {count} texts has {most}.")
  return lines


def _measure(values: dict[str, Any], name: str, training: Training, subject: Subject, held_out: str | None) -> None:
  """Adds the evaluator, and the metric of the best checkpoint, if the config has none."""
  if values["eval"]["evaluators"] or held_out is None:
    return
  task = training.measured
  within = {"data": {"split": held_out}} if "data" in values["data"] else {"split": held_out}
  values["eval"]["evaluators"] = {name: {"name": task.evaluator, **task.options(subject), "data": within}}
  if values["checkpoint"]["best"] is None:
    best = "f1" if training.labels == "tags" and are_tags(subject.class_names()) else training.best
    values["checkpoint"] |= {"best": f"eval/{name}/{best}", "best_mode": training.best_mode}


def _preprocessing(values: Mapping[str, Any]) -> dict[str, Any]:
  return dict(values["model"].get("preprocessing") or {})


def _head(origin: Origin, training: Training, keeps_head: bool, classes: list[str] | None) -> str:
  if training.head == NO_HEAD:
    return f"head: none; a vector is made of the states of {origin.folder}."
  names = "" if classes is None else f", {_listed(classes)}"
  if keeps_head or training.head is None:
    return f"head: that of {origin.folder}{names}."
  had = f"; that of {origin.folder} has {_listed(origin.classes)}" if origin.head == training.head else ""
  return f"head: new{names}{had if origin.classes else ''}."


def _listed(classes: Sequence[str] | None) -> str:
  some = [*(classes or [])[:8], *(["..."] if len(classes or []) > 8 else [])]
  return f"{len(classes or [])} classes: {', '.join(some)}"
