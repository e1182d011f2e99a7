"""Config loading: a Python file or a saved config.json, command-line overrides, and one-line errors.

    config, options = load(["--config=configs/clip_emoji.py", "--config.model.depth=4", "--config.steps", "500"])

A config holds data only: none, bools, numbers, strings, lists (tuples become lists) and sections of these, so
that it survives a round trip through config.json.
"""

import json
import os
import pathlib
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from zoo.config.overrides import override, split
from zoo.config.registry import lookup, names, takes
from zoo.config.schema import OPTIONAL, REQUIRED, Section, check, flatten, resolve, with_defaults
from zoo.errors import UserError, an, did_you_mean
from zoo.json_files import check_file, read_json
from zoo.storage import as_path, replacing

# A resumed run must agree with its start in these, except for details that do not change results.
SAME_RUN = ("seed", "batch_size", "model", "objective", "optimizer", "frozen")
SUPPLIED = ("model", "by_row", "frozen", "generate")  # Arguments that callers supply, not the config.
MAY_DIFFER = ("model.remat", "optimizer.accumulate", "objective.pairs", "objective.chunk")

_HELP = """Usage: {program} --config=FILE [--config.KEY=VALUE ...]

  --config=FILE         a Python file with get_config(), or the config.json of a run, or the folder of a run
  --config.a.b=VALUE    replaces an entry: --config.steps=500 --config.model.depth=4 --config.mesh='{{"data": 8}}'
{flags}  --traceback           shows where in the code a mistake was met
  --help                shows this text and, beside --config=FILE, every entry of that config

Top-level keys: {required}. Optional: {optional}."""


def load(
  argv: list[str], flags: Mapping[str, str] | None = None, switches: Mapping[str, str] | None = None
) -> tuple[ConfigDict, dict[str, Any]]:
  """Parses command-line arguments into a validated config. Exits after `--help`.

  Args:
    argv: the arguments without the program's name.
    flags: further flags of the program, with their help: `{"run": "folder of a run"}` is `--run=FOLDER`. If
      `--config` is missing, the config is read from the run folder `--run`.
    switches: flags without a value, with their help.

  Returns:
    The config, locked against new keys, and the options `{"traceback": bool, switch: bool, **flags that were given}`.

  Raises:
    UserError: for an unknown flag, a file that cannot be read, an unknown key or a value of a wrong type.
  """
  flags, switches = dict(flags or {}), dict(switches or {})
  options, overrides = split(argv, flags, switches)
  helps = options.pop("help")
  source = options.pop("config", options.get("run"))
  if helps and source is None:
    print(_help(flags, switches))
    raise SystemExit(0)
  if source is None:
    raise UserError("Which config? Name one, as in --config=configs/clip_emoji.py. --help lists the flags.")
  config = with_defaults(read_config(source))
  for path, text in overrides:
    override(config, path, text)
  config = with_defaults(config)  # An override may have replaced a full section.
  check(config)
  if helps:
    entries = (f"  --config.{path}={json.dumps(value)}" for path, value in flatten(config))
    print("\n".join([_help(flags, switches), "", f"{source}:", *entries, "", *_further(config)]))
    raise SystemExit(0)
  return ConfigDict(config).lock(), options


def _help(flags: Mapping[str, str], switches: Mapping[str, str]) -> str:
  flag_help = {f"--{name}=...": text for name, text in flags.items()} | {
    f"--{name}": text for name, text in switches.items()
  }
  lines = "".join(f"  {name:<21} {text}\n" for name, text in flag_help.items())
  module = sys.modules["__main__"].__spec__  # Of `python -m package`; None for a script.
  program = pathlib.Path(sys.argv[0]).name if module is None else f"python -m {module.parent}"
  return _HELP.format(program=program, flags=lines, required=" ".join(REQUIRED), optional=" ".join(OPTIONAL))


def _further(config: Mapping[str, Any]) -> Iterator[str]:
  """Help lines: the options, not set in the config, of the functions that it names."""
  for section, package, key in (
    ("model", "models", "family"),
    ("objective", "objectives", "name"),
    ("data", "data", "name"),
  ):
    entries = config[section]
    if isinstance(entries.get(key), str) and entries[key] in names(package):
      more_options = [name for name in takes(lookup(package, entries[key]), SUPPLIED) if name not in entries]
      yield f"--config.{section}.KEY may be, for {entries[key]}, also: {', '.join(more_options) or 'nothing'}"


def read_config(source: str | os.PathLike) -> dict[str, Any]:
  """Reads the config of a Python file, a config.json or a run folder, as plain data, not validated."""
  path = as_path(source)
  if path.is_dir():
    path = path / "config.json"
  if not path.exists():
    siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
    raise UserError(f"There is no file {path}.{did_you_mean(path.name, siblings)}")
  check_file(path)
  content = _run(path) if path.suffix == ".py" else read_json(path, object)
  if not isinstance(content, Mapping | ConfigDict):
    raise UserError(f"{path} gives {an(type(content))}, not a config. Return a ConfigDict or a dict.")
  return resolve(content)


def _run(path: epath.Path) -> Any:
  """Runs get_config() of a Python file. UserError, with the line, for an error in the file."""
  names: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
  try:
    exec(compile(path.read_text(), str(path), "exec"), names)
    if callable(names.get("get_config")):
      return names["get_config"]()
  except (Exception, SystemExit) as error:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
      lines.append(error.lineno)
    where = f"{path}, line {lines[-1]}" if lines else str(path)
    message = error.msg if isinstance(error, SyntaxError) else error
    raise UserError(f"{where}: {type(error).__name__}: {message}") from error
  raise UserError(f"{path} has no function get_config(). It should return a ConfigDict or a dict.")


def to_json(config: Section) -> str:
  """A config as JSON: sorted keys, indented by two."""
  return json.dumps(resolve(config), indent=2, sort_keys=True) + "\n"


def save(config: Section, folder: str | os.PathLike) -> None:
  """Writes config.json into the run folder atomically."""
  folder = as_path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  with replacing(folder / "config.json") as path:
    path.write_text(to_json(config))


def differences(old: Section, new: Section) -> list[str]:
  """Lines like "model.depth: 4 -> 6" for the entries that differ, sorted."""
  before, after = ({path: json.dumps(value, sort_keys=True) for path, value in flatten(x)} for x in (old, new))
  paths = sorted(path for path in before | after if before.get(path) != after.get(path))
  return [f"{path}: {before.get(path, 'absent')} -> {after.get(path, 'absent')}" for path in paths]


def check_same_run(config: Section, folder: str | os.PathLike) -> list[str]:
  """Checks that the folder holds this run, if any -> warnings: a line for each other source or split of its data.

  Raises:
    UserError: it holds another run: with another model, objective, optimizer, seed, batch, frozen model, or other names
      of classes; or an exported model without a run, which the end of training would overwrite.
  """
  folder = as_path(folder)
  if not (folder / "config.json").exists():
    if (folder / "model.json").exists():
      raise UserError(f"{folder} holds a saved model, not a run. Choose another folder with --config.workdir=FOLDER.")
    return []
  begun, new = read_config(folder), resolve(config)
  of_run = lambda whole: {key: whole.get(key) for key in SAME_RUN}
  changes = [line for line in differences(of_run(begun), of_run(new)) if line.split(":")[0] not in MAY_DIFFER]
  changes += _changed(begun, new, "classes", "class_names")
  if changes:
    kind = "model" if any(line.startswith("model.") for line in changes) else "run"
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    shown = "; ".join(changes[:3]) + more
    raise UserError(f"{folder} holds another {kind}: {shown}. Choose another folder with --config.workdir=FOLDER.")
  return [
    f"Warning: {folder} was trained on other data until now: {line}. For a new run choose another --config.workdir."
    for line in _changed(begun, new, "source", "split")
  ]


def _changed(old: Section, new: Section, *names: str) -> list[str]:
  """`differences` of the entries of these names in the sections of data, where both have them."""
  before, after = (dict(flatten({"data": config.get("data") or {}})) for config in (old, new))
  paths = {path for path in before.keys() & after.keys() if path.rpartition(".")[2] in names}
  return differences({path: before[path] for path in paths}, {path: after[path] for path in paths})


def without(section: Section, *keys: str) -> dict[str, Any]:
  """A config section as a plain dict, without the entries `keys`."""
  return {key: value for key, value in resolve(section).items() if key not in keys}
