"""Config schema: the top-level keys with their types, and below them plain data that survives a JSON round trip.

Other sections are checked where their function is called, against its signature
(`zoo.config.registry`).
"""

import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NoReturn

from ml_collections import ConfigDict

from zoo.errors import UserError, an, did_you_mean, shown
from zoo.json_files import DEPTH

Section = Mapping[str, Any] | ConfigDict

REQUIRED = {
  "seed": int,
  "steps": int,
  "batch_size": int,
  "workdir": str,
  "model": dict,
  "objective": dict,
  "data": dict,
  "optimizer": dict,
  "mesh": dict,
  "sharding": (str, list),
  "eval": dict,
}
OPTIONAL = {
  "log": dict,
  "checkpoint": dict,
  "bad_loss": dict,
  "timeouts": dict,
  "init": (str, dict, type(None)),
  "task": (type(None), str),
  "attention": str,
  "activations": list,
  "verify": str,
  "frozen": dict,
}
KINDS = REQUIRED | OPTIONAL

# Sections that the training loop itself reads: all allowed entries, with their defaults.
SECTIONS = {
  "eval": {"every": 0, "evaluators": {}},  # In steps, and at the end; 0: only at the end.
  "log": {"every": 50, "tensorboard": False, "wandb": None},
  "checkpoint": {"every": 500, "keep": 2, "best": None, "best_mode": "max"},
  # Reaction to a step whose loss or gradient is not finite, or whose loss is above `spike` times the running mean.
  "bad_loss": {"action": "stop", "spike": None, "most_in_a_row": 10},
  # Seconds: for hosts to join, until a silent one counts as dead, for a step, and for everything else.
  "timeouts": {"start": 300, "heartbeat": 100, "step": 600, "other": 3600},
}
LEAST = {
  "seed": 0,
  "steps": 1,
  "batch_size": 1,
  "eval.every": 0,
  "log.every": 1,
  "checkpoint.every": 1,
  "checkpoint.keep": 1,
  "bad_loss.most_in_a_row": 1,
  "timeouts.start": 1,
  "timeouts.heartbeat": 1,
  "timeouts.step": 1,
  "timeouts.other": 1,
}
ONE_OF = {
  "bad_loss.action": ("stop", "skip", "roll_back"),
  "verify": ("auto", "always", "never"),  # Whether to compare the mesh with one device; "auto": once.
}
MOST = {
  "seed": 2**63 - 1,  # Range of `jax.random.key`.
  "steps": 2**31 - 1,  # Range of the state's int32 counter.
  "timeouts.start": 2**31 - 1,
  "timeouts.heartbeat": 2**31 - 1,
  "timeouts.step": 2**31 - 1,
  "timeouts.other": 2**31 - 1,
}
# For every entry of this name: larger values would only exhaust the memory.
LARGEST = {"max_length": 2**24, "target_length": 2**24, "image_size": 2**16}
OR_NONE = {
  "log.wandb": (str, dict, type(None)),
  "checkpoint.best": (str, type(None)),
  "bad_loss.spike": (int, float, type(None)),
}
_SPOKEN: dict[Any, str] = {
  int: "an int",
  str: "a str",
  bool: "a bool",
  dict: "a mapping",
  list: "a list of rules",
  (str, list): "the name of a strategy or a list of rules",
  (str, dict, type(None)): "a str, a mapping, or None",
  OPTIONAL["task"]: "the name of a task (str), or None",
  OR_NONE["checkpoint.best"]: "the name of a metric (str), or None",
  OR_NONE["bad_loss.spike"]: "a number, or None",
}


def resolve(value: Any, where: str = "config", depth: int = DEPTH) -> Any:
  """Converts to plain data: mappings become dicts, and tuples lists.

  Raises:
    UserError: values that JSON would lose or change, or nesting deeper than `depth`, e.g. a list in itself.
  """
  if isinstance(value, Mapping | ConfigDict | list | tuple) and not depth:
    raise UserError(f"{where} is nested more than {DEPTH} levels deep, or contains itself.")
  if isinstance(value, Mapping | ConfigDict):
    for key in value:
      if not isinstance(key, str):
        raise UserError(f"{where} has the key {shown(key)}. Keys are str: write '{key}'.")
    return {key: resolve(value[key], f"{where}.{key}", depth - 1) for key in value}
  if isinstance(value, list | tuple):
    return [resolve(entry, f"{where}.{index}", depth - 1) for index, entry in enumerate(value)]
  if value is None or type(value) in (bool, int, float, str):
    return value
  raise UserError(f"{where} is {an(type(value))}. A config holds data only: int, float, bool, str, lists, mappings.")


def flatten(config: Section, prefix: str = "") -> Iterator[tuple[str, Any]]:
  """The entries as ("model.depth", 4), in their order; a list or an empty section is one entry."""
  for key, value in resolve(config).items():
    if isinstance(value, dict) and value:
      yield from flatten(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value


def refuse(name: str, where: str, offered: Iterable[str]) -> NoReturn:
  """Raises the UserError for an unknown entry `name` of `where`."""
  offered = list(dict.fromkeys(offered))
  raise UserError(f"{where} has no '{name}'.{did_you_mean(name, offered)} It has: {', '.join(offered) or 'nothing'}.")


def read_init(init: Any) -> tuple[str | os.PathLike, Collection[str], Collection[str], str | None]:
  """Parses the entry `init`, a folder or a section -> the source, the patterns `fresh`, the names `ignore`, and `into`.

  Raises:
    UserError: it is neither, or has unknown entries or wrong types.
  """
  section = {"source": init} if isinstance(init, str | os.PathLike) else init
  options = dict(section) if isinstance(section, Mapping) else {}
  source, fresh, ignore = options.pop("source", None), options.pop("fresh", ()), options.pop("ignore", ())
  into, lists = options.pop("into", None), all(_is_names(names) for names in (fresh, ignore))
  if not isinstance(source, str | os.PathLike) or not lists or not isinstance(into, str | None) or options:
    raise UserError(
      f"init is {shown(init)}. It must be a folder, or have a 'source' and may have lists 'fresh' and 'ignore' and a "
      "str 'into'."
    )
  return source, fresh, ignore, into


def _is_names(value: Any) -> bool:
  return isinstance(value, Collection) and not isinstance(value, str) and all(isinstance(name, str) for name in value)


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
  """Fills missing optional keys and entries of SECTIONS with their defaults, also after overrides."""
  filled = {"attention": "auto", "activations": [], "verify": "auto", **config, "init": config.get("init")}
  for name, entries in SECTIONS.items():
    section = config.get(name, {} if name in OPTIONAL else None)
    if isinstance(section, dict):
      filled[name] = resolve(entries) | section
  return filled


def check(config: Mapping[str, Any]) -> None:
  """UserError for unknown, missing, mistyped and impossible entries of the top level and of SECTIONS.

  Everywhere: for names that cannot be spelled on a command line, and values that no function accepts.
  """
  for name in config:
    if name not in KINDS:
      refuse(name, "config", KINDS)
  missing = [f"'{name}'" for name in REQUIRED if name not in config]
  if missing:
    raise UserError(f"The config has no {', '.join(missing)}. It needs: {', '.join(REQUIRED)}.")
  for name, value in config.items():
    kind = KINDS[name]
    if not isinstance(value, kind) or isinstance(value, bool):
      raise UserError(f"config.{name} is {shown(value)}. It must be {_SPOKEN[kind]}.")
  for name, entries in SECTIONS.items():
    for key, value in config[name].items():
      if key not in entries:
        refuse(key, f"config.{name}", entries)
      kind = OR_NONE.get(f"{name}.{key}", type(entries[key]))
      fits = type(value) is kind if isinstance(kind, type) else isinstance(value, kind) and not isinstance(value, bool)
      if not fits:
        raise UserError(f"config.{name}.{key} is {shown(value)}. It must be {_SPOKEN[kind]}.")
  values = dict(flatten(config))
  for path, least in LEAST.items():
    if values[path] < least:
      raise UserError(f"config.{path} is {values[path]}. It must be at least {least}.")
  for path, offered in ONE_OF.items():
    if values[path] not in offered:
      near = did_you_mean(values[path], offered)
      raise UserError(f"config.{path} is {shown(values[path])}.{near} It must be one of: {', '.join(offered)}.")
  for path, largest in MOST.items():
    if values[path] > largest:
      raise UserError(f"config.{path} is {values[path]}. It must be at most {largest}.")
  if not config["workdir"]:
    raise UserError("config.workdir is empty. Name a folder for the run, as in --config.workdir=runs/first.")
  if config["init"] in ("", {}):
    raise UserError("config.init is empty. Name a folder or a hub id whose weights to begin with, or none.")
  _check_values(config, "config")


def _check_values(value: Any, where: str) -> None:
  if isinstance(value, dict):
    for key, entry in value.items():
      if not key or "." in key or not _encodes(key):
        raise UserError(
          f"{where} has the key {shown(key)}. Dots separate sections, as in --config.model.depth: choose a key "
          "without one."
        )
      if isinstance(entry, int) and entry > LARGEST.get(key, entry):
        raise UserError(f"{where}.{key} is {shown(entry)}. It must be at most {LARGEST[key]}.")
      _check_values(entry, f"{where}.{key}")
  elif isinstance(value, list):
    for index, entry in enumerate(value):
      _check_values(entry, f"{where}.{index}")
  elif isinstance(value, str) and not _encodes(value):
    raise UserError(f"{where} is {shown(value)}. It contains a lone surrogate or a NUL character. Remove it.")
  elif isinstance(value, int) and not -(2**63) <= value < 2**63:
    raise UserError(
      f"{where} is {shown(value, 40)}, an int of {len(str(abs(value)))} digits. The largest is 2**63 - 1."
    )
  elif isinstance(value, float) and math.isnan(value):
    raise UserError(f"{where} is nan. Write a finite number.")


def _encodes(text: str) -> bool:
  """Whether a string is valid text or a valid path (in which surrogate escapes stand for bytes that are not UTF-8)."""
  try:
    text.encode("utf-8", "surrogateescape")
  except UnicodeEncodeError:
    return False
  return "\0" not in text
