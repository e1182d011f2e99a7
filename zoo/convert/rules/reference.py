"""Facts about config.json in the reference, torch transformers: the names its classes read, and their defaults.

`reference.json` beside this file has these facts for versions 5 and 4, written by scripts/reference_configs.py. An
entry that no version reads has no effect there.
"""

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple


class Reference(NamedTuple):
  """The config entries of one model_type.

  Args:
    defaults: name -> default; the newest version's, if versions differ.
    reads: names that are read and have no default.
    aliases: other names of an entry -> its name.
    fields: the defaults of the newest version's config class, i.e. all entries that it writes.
  """

  defaults: Mapping[str, Any]
  reads: frozenset[str]
  aliases: Mapping[str, str]
  fields: Mapping[str, Any]

  def changes(self, name: str, value: Any) -> bool:
    """Whether an entry may affect the reference's computation: it is read, and differs from its default.

    >>> of("bert").changes("is_llama_config", True), of("bert").changes("is_decoder", True)
    (False, True)
    """
    if name in self.defaults:
      default = self.defaults[name]
      # A null is falsy, like most defaults of bools.
      return default is True if value is None else not same(value, default)
    return value is not None and name in self.reads


def same(value: Any, default: Any) -> bool:
  """Equality that distinguishes bool from int: 1 is not True."""
  return value == default and isinstance(value, bool) == isinstance(default, bool)


@functools.cache
def of(model_type: str) -> Reference | None:
  """The reference's entries of a model_type; None if unknown."""
  sections = [section for section in _versions().values() if model_type in section["types"]]
  if not sections:
    return None
  defaults: dict[str, Any] = {}
  reads: set[str] = set()
  aliases: dict[str, str] = {}
  for section in sections:  # The newest version takes precedence.
    kind = section["types"][model_type]
    aliases |= {alias: name for alias, name in kind["aliases"].items() if alias not in {*defaults, *aliases}}
    for facts in (kind, section["common"]):
      reads |= {*facts["reads"]}
      for values in (facts["defaults"], facts["absent"]):
        defaults |= {name: value for name, value in values.items() if name not in {*defaults, *aliases}}
  fields = {**sections[0]["common"]["defaults"], **sections[0]["types"][model_type]["defaults"]}
  return Reference(defaults, frozenset(reads - defaults.keys() - aliases.keys()), aliases, fields)


def of_generation() -> Reference:
  """The reference's entries of a generation_config.json."""
  return _of_file("generation")


def of_processors() -> Reference:
  """The reference's entries of a preprocessor_config.json, for images or audio, of any class."""
  return _of_file("processors")


@functools.cache
def _of_file(kind: str) -> Reference:
  defaults: dict[str, Any] = {}
  reads: set[str] = set()
  for section in _versions().values():
    facts = section[kind]
    defaults = {**facts["absent"], **facts["defaults"], **defaults}
    reads |= {*facts["reads"]}
  return Reference(defaults, frozenset(reads - defaults.keys()), {}, {})


@functools.cache
def _versions() -> dict[str, Any]:
  return json.loads((pathlib.Path(__file__).with_suffix(".json")).read_text(encoding="utf-8"))
