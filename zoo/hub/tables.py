"""Lookup of the tables of zoo/convert by model_type or family, and of tensor names in them."""

import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from zoo import convert
from zoo.config.registry import check_type, defining
from zoo.convert.rules.layouts import Rule
from zoo.errors import UserError, did_you_mean, shown

# What every table has: name -> (type, what to write), see zoo/convert/__init__.py.
REQUIRED = {
  "MODEL_TYPES": (Sequence[str], 'MODEL_TYPES = ("bert",), each model_type of a config.json that it reads'),
  "HEADS": (Mapping, 'HEADS = {None: ("BertModel",)}, class names of transformers by head'),
  "sizes": (Callable, "def sizes(options, head, tensors), which returns arguments of zoo.build"),
  "config": (Callable, "def config(sizes), which returns the entries of a config.json"),
  "rules": (Callable, "def rules(sizes), which returns rules of zoo/convert/rules/layouts.py"),
}
CLASSIFY = ("classify", "classify_tokens")  # The heads that have classes.
NO_HEAD = "none"  # Requests the headless model; None means "as in the files".


def of_model_type(model_type: Any, where: str) -> ModuleType:
  """The conversion table for a model_type, e.g. "bert"."""
  tables = [_checked(family) for family in families()]
  tables_by_type = {name: table for table in tables for name in table.MODEL_TYPES}
  if not isinstance(model_type, str) or model_type not in tables_by_type:
    near = did_you_mean(str(model_type), tables_by_type)
    raise UserError(
      f"{where}: the zoo has no model_type {shown(model_type)}.{near} It has: {', '.join(sorted(tables_by_type))}."
    )
  return tables_by_type[model_type]


def of_family(family: str) -> ModuleType:
  """The conversion table of a family. UserError if there is none, or it lacks what every table has."""
  offered = families()
  if family not in offered:
    raise UserError(
      f"The hub has no layout for the family '{family}'. Use zoo.save, or a family with one: {', '.join(offered)}."
    )
  return _checked(family)


def _checked(family: str) -> ModuleType:
  """The conversion table of a family that has one. UserError if it lacks what every table has."""
  table = defining("convert", family, **REQUIRED)
  for head, classes in table.HEADS.items():
    check_type(f"zoo/convert/{family}.py: HEADS[{head!r}]", classes, Sequence[str])
  # What a family with LOADS_AS writes is read as that family.
  is_read = table.MODEL_TYPES or hasattr(table, "LOADS_AS")
  if not is_read or not all(table.HEADS.values()) or not table.HEADS:
    raise UserError(f"zoo/convert/{family}.py: MODEL_TYPES, or HEADS, or one of its heads is empty. Name at least one.")
  return table


def families() -> list[str]:
  """The families that have a conversion table."""
  return sorted(info.name for info in pkgutil.iter_modules(convert.__path__) if not info.ispkg)


def family_of(table: ModuleType) -> str:
  """The family of a table."""
  return table.__name__.rpartition(".")[2]


def choose_head(table: ModuleType, config: Mapping[str, Any], head: str | None, where: str) -> str | None:
  """The requested head, or that of the config's architecture."""
  if head is not None:
    head = None if head == NO_HEAD else head
    if head not in table.HEADS:
      heads = ", ".join(str(name or NO_HEAD) for name in table.HEADS)
      raise UserError(f"{family_of(table)} has no head '{head or NO_HEAD}'. It has: {heads}.")
    return head
  architectures = config.get("architectures") or [next(iter(table.HEADS.values()))[0]]
  head_of_class = {name: head for head, names in table.HEADS.items() for name in names}
  architecture = architectures[0] if isinstance(architectures, list) else architectures
  if not isinstance(architecture, str) or architecture not in head_of_class:
    heads = ", ".join(str(name or NO_HEAD) for name in table.HEADS)
    raise UserError(f"{where}: the zoo does not have {shown(architecture)}. Load it with another head: {heads}.")
  return head_of_class[architecture]


def head_of(table: ModuleType, sizes: Mapping[str, Any]) -> str | None:
  """The head of a model of these sizes."""
  return table.head_of(sizes) if hasattr(table, "head_of") else sizes.get("head")


def with_head(table: ModuleType, sizes: Mapping[str, Any], head: str | None) -> Mapping[str, Any]:
  """The sizes of the same model with another head; of one that had no classes with 2, as transformers has it."""
  if hasattr(table, "with_head"):
    return table.with_head(sizes, head)
  classes = {"num_classes": (sizes["num_classes"] or 2) if head in CLASSIFY else None} if "num_classes" in sizes else {}
  return {**sizes, **classes, "head": head}


def spellings(name: str, table: ModuleType) -> list[str]:
  """Spellings of a name: as it is, without prefix, and with each prefix of the table."""
  fronts = getattr(table, "PREFIX", ())
  fronts = (fronts,) if isinstance(fronts, str) else fronts
  bare = next((name.removeprefix(front) for front in fronts if name.startswith(front)), name)
  return [name, bare, *(front + bare for front in fronts)]


def tied(table: ModuleType) -> Mapping[str, str]:
  """Tied tensors: name of the copy -> name of the original."""
  return getattr(table, "TIED", {})


def canonical(names: Iterable[str], table: ModuleType, where: str) -> dict[str, str]:
  """Name in the table's spelling -> name in the file, without ignored ones."""
  names_in_file: dict[str, str] = {}
  for name in names:
    proper = name
    for pattern, replacement in getattr(table, "RENAMED", ()):
      proper = re.sub(pattern, replacement, proper)
    if any(re.fullmatch(pattern, proper) for pattern in getattr(table, "IGNORED", ())):
      continue
    if proper in names_in_file:
      raise UserError(f"{where}: '{name}' and '{names_in_file[proper]}' are the same tensor twice. Remove one.")
    names_in_file[proper] = name
  return names_in_file


def lookup(name: str, names: Mapping[str, str], table: ModuleType, own_names: Iterable[str] = ()) -> str | None:
  """The file's name of a tensor: as it is, with another prefix, or of a tied copy that is not among `own_names`."""
  repeats = [repeat for repeat, original in tied(table).items() if original == name and repeat not in own_names]
  candidates = (spelling for candidate in (name, *repeats) for spelling in spellings(candidate, table))
  return next((spelling for spelling in candidates if spelling in names), None)


def by_ours(rules: Iterable[Rule]) -> dict[str, list[Rule]]:
  """Groups rules by our path, without those for tensors that we do not have."""
  grouped: dict[str, list[Rule]] = {}
  for rule in rules:
    if rule.ours:
      grouped.setdefault(rule.ours, []).append(rule)
  return grouped


def by_theirs(rules: Iterable[Rule]) -> dict[str, list[Rule]]:
  """Groups rules by their name, sorted by offset within the tensor."""
  grouped: dict[str, list[Rule]] = {}
  for rule in rules:
    grouped.setdefault(rule.theirs, []).append(rule)
  return {
    name: sorted(parts, key=lambda rule: rule.stretch[1] if rule.stretch else 0) for name, parts in grouped.items()
  }
