"""Command-line overrides: `--config.model.depth=4` replaces an entry with a value of the entry's type."""

import ast
import re
from collections.abc import Iterable, Mapping
from typing import Any

from zoo.config.schema import KINDS, OR_NONE, SECTIONS, refuse, resolve
from zoo.errors import UserError, did_you_mean, shown
from zoo.json_files import parse_json


def split(
  argv: Iterable[str], flags: Iterable[str], switches: Iterable[str] = ()
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
  """Splits arguments -> (flags, overrides as ("model.depth", "4")).

  `flags` take a value, as `--config` does; `switches` take none, and are True if given.
  """
  options: dict[str, Any] = {"help": False, "traceback": False, **dict.fromkeys(switches, False)}
  overrides, words = [], list(argv)
  sections = ["config", *flags, *options]
  while words:
    word = words.pop(0)
    name, equals, text = word.removeprefix("--").partition("=")
    head, dot, path = name.partition(".")
    if word in ("-h", "--help", "--traceback", *(f"--{switch}" for switch in switches)):
      options["help" if word == "-h" else name] = True
      continue
    if not word.startswith("--"):
      raise UserError(f"Unexpected argument '{word}'. Options look like --config=FILE.py and --config.steps=500.")
    if head in KINDS and name not in flags:
      raise UserError(f"Unknown flag --{name}. Did you mean '--config.{name}'?")
    if name in options and name != "config" and name not in flags:
      raise UserError(f"--{name} takes no value. Remove '={text}'.")
    if name in options:
      raise UserError(f"--{name} is given twice, the first time as {shown(options[name])}. Remove one of them.")
    if head != "config" and name not in flags:
      near = did_you_mean(f"--{name}", [f"--{flag}{dot}{path}" for flag in sections])
      raise UserError(f"Unknown flag --{name}.{near} --help lists the flags.")
    if not equals:
      if not words or words[0].startswith("--"):
        raise UserError(f"--{name} needs a value, as in --{name}=VALUE.")
      text = words.pop(0)
    if not text and (head != "config" or not dot):
      what = f"missing: {flags[name]}" if isinstance(flags, Mapping) and name in flags else "empty"
      raise UserError(f"--{name} is {what}. --help lists the flags.")
    if head == "config" and name != "config":
      overrides.append((path, text))
    else:
      options[name] = text
  return options, overrides


def require(flags: Mapping[str, Any], names: Iterable[str], texts: Mapping[str, str]) -> None:
  """UserError unless all flags in `names` have a value; texts: what each flag means."""
  for name in names:
    if not flags.get(name):
      raise UserError(f"--{name} is missing: {texts[name]}. --help lists the flags.")


def help_text(usage: str, texts: Mapping[str, str]) -> str:
  """What --help prints: the usage, and a line for each flag of a command, {name: what it means}."""
  return "\n".join([f"Usage: {usage}", "", *(f"  --{f'{name}=...':<16} {text}" for name, text in texts.items())])


def override(config: dict[str, Any], path: str, text: str) -> None:
  """Sets the entry at `path`, in place; new entries are allowed where a function's signature validates them.

  Missing or null sections on the path are created if they are allowed.

  Raises UserError for a section or key that is not allowed, and a text that is not a valid value.
  """
  *sections, last = path.split(".")
  node: Any = config
  where = "config"
  for name in sections:
    entries = _entries(node, where)
    if entries.get(name) is None and isinstance(node, dict) and _begins(name, where, entries):
      entries = node
      node[name] = {}
    if name not in entries:
      refuse(name, where, _closed(where) | entries)
    node, where = entries[name], f"{where}.{name}"
  entries = _entries(node, where)
  if last not in entries and (isinstance(node, list) or not last or last not in _closed(where, last)):
    refuse(last, where, _closed(where) | entries)
  node[int(last) if isinstance(node, list) else last] = parse(f"config.{path}", text, entries.get(last))


def _entries(node: Any, where: str) -> dict[str, Any]:
  if isinstance(node, list):
    return {str(index): entry for index, entry in enumerate(node)}
  if not isinstance(node, dict):
    way_out = f" Replace all of it, as in --{where}='{{\"KEY\": VALUE}}'." if isinstance(node, str) else ""
    raise UserError(f"{where} is {shown(node)}, not a mapping: it has no entries.{way_out}")
  return node


def _begins(name: str, where: str, entries: dict[str, Any]) -> bool:
  """Whether a missing section `name` may be created in `where`: a known one, or one that a function validates later.

  A name similar to an entry counts as a typo of it.
  """
  path = f"{where}.{name}".removeprefix("config.")
  if where == "config" or where.removeprefix("config.") in SECTIONS:
    kinds = KINDS.get(name, ()) if where == "config" else OR_NONE.get(path, ())
    return dict in (kinds if isinstance(kinds, tuple) else (kinds,))
  return bool(name) and (name in entries or not did_you_mean(name, entries))


def _closed(where: str, *others: str) -> dict[str, Any]:
  """Allowed entries at the top level or in a section of SECTIONS; elsewhere `others`, validated later."""
  closed = {"config": KINDS, **{f"config.{name}": entries for name, entries in SECTIONS.items()}}
  return dict(closed.get(where, dict.fromkeys(others)))


def literal(text: str) -> Any:
  """Parses a JSON or Python literal (number, list, mapping, true, none, ...); other strings are returned unchanged."""
  if text.lower() in ("true", "false", "none", "null"):
    return {"true": True, "false": False}.get(text.lower())
  for read in (parse_json, ast.literal_eval):
    try:
      return resolve(read(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
      continue
  return text


def parse(where: str, text: str, old: Any) -> Any:
  """Parses `text` as a value of the type of `old`; `none` is always accepted."""
  value = literal(text)
  if value is None or old is None:
    return value
  if isinstance(old, str):  # May be replaced by a section, or at the top level by a value of its kind.
    return value if isinstance(value, KINDS.get(where.removeprefix("config."), str | dict)) else text
  if isinstance(old, bool):
    fits, expected = isinstance(value, bool), "a bool"
  elif isinstance(old, int | float):
    value = float(text) if re.fullmatch("[+-]?(inf|nan)", text.lower()) else value
    fits, expected = isinstance(value, int | float) and not isinstance(value, bool), "a number"
    # learning_rate=1 is 1.0 and steps=1e3 is 1000; depth=0.5 stays, for the function's signature to judge.
    if fits and abs(value) < 2**63 and (isinstance(old, float) or float(value).is_integer()):
      value = type(old)(value)
  elif isinstance(old, list):
    value = [literal(item.strip()) for item in text.split(",")] if not isinstance(value, list) else value
    fits, expected = not text.startswith(("[", "(", "{")) or literal(text) == value, "a list, like 2,4 or [2, 4]"
  else:
    fits, expected = (
      isinstance(value, dict),
      f"a mapping. Set an entry of it, as in --{where}.{next(iter(old), 'key')}=...",
    )
  if not fits:
    raise UserError(f"{where} is {shown(text)}. It must be {expected}.")
  return value
