"""The command `python -m zoo.evaluate --model=FOLDER_OR_ID --task=NAME --data=SOURCE`."""

import os
from collections.abc import Iterable

from zoo import sharding
from zoo.config.overrides import literal, split
from zoo.errors import UserError, setting_up
from zoo.evaluate.from_folder import option_names, prepare
from zoo.evaluate.tasks import find_task, task_names
from zoo.storage import as_path, check_folder, make_folder

FLAGS = {
  "model": "a folder, or a hub id; a run's folder too",
  "task": "what to measure",
  "data": "KIND:WHERE, as in jsonl:reviews.jsonl, csv:reviews.csv, images:photos",
  "split": "by default the first of test, validation and train that the data have",
  "data_dir": "the folder that a relative path starts from",
  "columns": "which field is which column, as in text=review,label=stars; by default as their names say",
  "workdir": "folder for the files; by default runs/evaluations/NAME/TASK",
  "head": "another head than the architecture's",
  "dtype": "of the parameters, e.g. bfloat16",
  "mesh": 'devices, as in {"data": 4, "model": 2}; by default all of them share the rows',
  "sharding": "strategy of the parameters (replicated)",
  "ignore": "entries of a published model's config.json to leave unread, with commas between them",
}


def asks(argv: Iterable[str]) -> bool:
  """Whether the arguments have a model or a task, rather than a run with a config."""
  return any(word.partition("=")[0] in ("--model", "--task") for word in argv)


def main(argv: list[str]) -> int:
  """Evaluates the model of the command line; returns 0 on success."""
  task = _value(argv, "task")
  names = option_names(task) if task is not None else []
  flags, _ = split(argv, dict.fromkeys(names, "a value") | FLAGS)
  if flags.pop("help"):
    print(_help(task))
    return 0
  flags.pop("traceback")
  for name in ("model", "task", "data"):
    if not flags.get(name):
      raise UserError(f"--{name} is missing: {FLAGS[name]}. Tasks: {', '.join(task_names())}.")
  with setting_up():
    workdir = as_path(flags.pop("workdir", None) or default_workdir(flags["model"], flags["task"]))
    check_folder(workdir, "Choose another --workdir.")
    loading = {
      "head": flags.pop("head", None),
      "dtype": flags.pop("dtype", None),
      "mesh": sharding.make_mesh(literal(flags.pop("mesh", '{"data": -1}'))),
      "strategy": literal(flags.pop("sharding", "replicated")),
      "ignore": [name for name in flags.pop("ignore", "").split(",") if name],
    }
    plain = {name: flags.pop(name, None) for name in ("split", "data_dir", "columns")}
    options = {name: literal(text) for name, text in flags.items() if name not in ("model", "task", "data")}
    evaluation = prepare(flags["model"], flags["task"], flags["data"], **plain, loading=loading, options=options)
  make_folder(workdir)  # Raises before the work, not after it.
  evaluation(workdir, note=lambda text: print(text, end="\n\n", flush=True))
  print(f"Written to {workdir}.")
  return 0


def _value(argv: list[str], flag: str) -> str | None:
  """The value of a flag, before all arguments are parsed."""
  for word, following in zip(argv, [*argv[1:], ""]):
    name, equals, text = word.partition("=")
    if name == f"--{flag}":
      return text if equals else following
  return None


def default_workdir(model: str, task: str) -> str:
  """The default output folder, outside of the folder of the weights."""
  path = os.path.normpath(os.path.expanduser(model))
  name = os.path.basename(os.path.abspath(path)) if os.path.isdir(path) else model.replace("/", "--")
  return os.path.join("runs", "evaluations", name, task)


def _help(task: str | None) -> str:
  lines = [f"  --{f'{name}=...':<14} {text}" for name, text in FLAGS.items()]
  text = "\n".join(
    [
      "Usage: python -m zoo.evaluate --model=FOLDER_OR_ID --task=NAME --data=SOURCE [--OPTION=VALUE ...]",
      "",
      *lines,
      "",
      "Tasks:",
      *(f"  {name:<21} {find_task(name).does}" for name in task_names()),
    ]
  )
  if task is None:
    return f"{text}\n\n--task=NAME --help shows its columns and options."
  columns = [f"  {name:<14} {column.holds}" for name, column in find_task(task).columns.items()]
  return "\n".join([text, "", f"Columns of {task}:", *columns, "", f"Options: {', '.join(option_names(task))}."])
