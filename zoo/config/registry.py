"""Registries: `{"name": "causal_lm", ...}` in a config builds `zoo.objectives.causal_lm.causal_lm(...)`.

The naming convention is the registry: a new file is found without being listed anywhere.
"""

import importlib
import inspect
import math
import pkgutil
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from zoo.config.schema import Section, resolve
from zoo.errors import UserError, did_you_mean, shown


def names(package: str) -> list[str]:
  """Names registered in `zoo.<package>`: its modules that define a function of the same name."""
  return [name for name in _modules(package) if hasattr(importlib.import_module(f"zoo.{package}.{name}"), name)]


def _modules(package: str) -> list[str]:
  files = pkgutil.iter_modules(importlib.import_module(f"zoo.{package}").__path__)
  return sorted(info.name for info in files if not info.ispkg)


def lookup(package: str, name: str) -> Callable:
  """Looks up the function `name` of `zoo/<package>/<name>.py`. UserError, listing the names, if there is none."""
  reason = ""
  if isinstance(name, str) and name in _modules(package):  # Imports only this module.
    function = getattr(importlib.import_module(f"zoo.{package}.{name}"), name, None)
    if function is not None:
      return function
    reason = f" ({name}.py defines no function of its name)"
  offered = names(package)
  near = did_you_mean(str(name), offered)
  raise UserError(f"zoo/{package} has no {shown(str(name))}{reason}.{near} It has: {', '.join(offered)}.")


def defining(package: str, name: str, **required: tuple[Any, str]) -> types.ModuleType:
  """The module `zoo/<package>/<name>.py`, which must define what `required` names: {name: (type, what to write)}.

  Raises:
    UserError: it defines one of them not at all, or with another type. For whoever adds the file.
  """
  module = importlib.import_module(f"zoo.{package}.{name}")
  for wanted, (annotation, example) in required.items():
    if not hasattr(module, wanted):
      raise UserError(f"zoo/{package}/{name}.py defines no {wanted}. Write {example}.")
    check_type(f"zoo/{package}/{name}.py: {wanted}", getattr(module, wanted), annotation)
  return module


def build(package: str, options: Section, *args: Any, offers: Mapping[str, Any] | None = None, **supplied: Any) -> Any:
  """Calls the function that the config section `options` names, with its other entries as keyword arguments.

  Args:
    package: folder of the zoo, e.g. `objectives`.
    options: `{"name": ..., **keywords}`, a dict or ConfigDict; the keywords are checked against the signature.
    *args: positional arguments that the caller supplies, e.g. the model.
    offers: keywords that the caller supplies if the function has parameters of these names.
    **supplied: keywords that the caller supplies. A config may not set them, nor those of `offers`.
  """
  options = resolve(options)
  if "name" not in options:
    raise UserError(f"A section for zoo/{package} needs a 'name'. It may be: {', '.join(names(package))}.")
  name = options.pop("name")
  function = lookup(package, name)
  parameters = parameters_of(function)
  positional = list(parameters)[: len(args)]
  supplied |= {name: value for name, value in (offers or {}).items() if name in parameters}
  check_options(function, options, name, supplied=[*positional, *supplied])
  return function(*args, **options, **supplied)


def parameters_of(function: Callable) -> dict[str, inspect.Parameter]:
  """A function's parameters by name; `**options: Unpack[Options]` is expanded to the entries of the TypedDict.

  An entry `Annotated[type, default]` has that default; others have none.

  >>> list(parameters_of(lookup("models", "vit")))[-5:]
  ['dropout', 'drop_path', 'dtype', 'scan', 'remat']
  """
  parameters = {}
  for name, parameter in inspect.signature(function).parameters.items():
    if typing.get_origin(parameter.annotation) is not typing.Unpack:
      parameters[name] = parameter
      continue
    (options,) = typing.get_args(parameter.annotation)
    for entry, hint in typing.get_type_hints(options, include_extras=True).items():
      kind, *defaults = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else [hint]
      default = defaults[0] if defaults else parameter.empty
      parameters[entry] = inspect.Parameter(entry, parameter.KEYWORD_ONLY, default=default, annotation=kind)
  return parameters


def takes(function: Callable, supplied: Iterable[str] = ()) -> list[str]:
  """The options of a function that a user may set: its parameters without those that the caller supplies.

  >>> takes(lookup("objectives", "causal_lm"), supplied=["model", "by_row"])
  ['balance', 'chunk']
  """
  parameters = parameters_of(function).values()
  return [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name not in supplied]


def check_options(function: Callable, options: Mapping[str, Any], what: str, supplied: Iterable[str] = ()) -> None:
  """Validates options against the signature of `function`: UserError for unknown, mistyped and missing ones.

    Args:
      function: its signature defines the options; parameters without annotation accept anything.
      options: the user's options.
      what: the function's name in messages.
  supplied: names of parameters that the caller supplies and a user may not.
  """
  supplied = set(supplied)
  parameters = parameters_of(function)
  offered = takes(function, supplied)
  open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
  for name, value in options.items():
    if name not in offered:
      if open_ended and name not in supplied:
        continue
      raise UserError(f"{what} takes no '{name}'.{did_you_mean(name, offered)} It takes: {', '.join(offered)}.")
    check_type(f"{what}.{name}", value, parameters[name].annotation)
  missing = [name for name in offered if parameters[name].default is inspect.Parameter.empty and name not in options]
  if missing:
    raise UserError(f"{what} needs {', '.join(repr(name) for name in missing)}. Add it to the config.")


# Annotation -> accepted types in a config, and their name in messages.
_KINDS = {
  int: ((int,), "an int"),
  float: ((int, float), "a number"),
  bool: ((bool,), "a bool"),
  str: ((str,), "a str"),
  type(None): ((type(None),), "none"),
  list: ((list, tuple), "a list"),
  tuple: ((list, tuple), "a list"),
  Sequence: ((list, tuple), "a list"),
  dict: ((Mapping,), "a mapping"),
  Mapping: ((Mapping,), "a mapping"),
}


def check_type(what: str, value: Any, annotation: Any) -> None:
  """UserError unless `value` has the annotated type; annotations that no config value can have are not checked."""
  union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
  annotations = typing.get_args(annotation) if union else (annotation,)
  kinds = [typing.get_origin(kind) or kind for kind in annotations]
  if any(kind not in _KINDS for kind in kinds):
    return
  expected = dict.fromkeys(_KINDS[kind][1] for kind in kinds)
  fitting = tuple(fit for kind in kinds for fit in _KINDS[kind][0])
  if not isinstance(value, fitting) or (isinstance(value, bool) and bool not in kinds):
    raise UserError(f"{what} is {shown(value)} ({type(value).__name__}). It must be {' or '.join(expected)}.")
  if isinstance(value, float) and math.isnan(value):
    raise UserError(f"{what} is nan. Write a number.")
  lists = [typing.get_args(kind) for kind in annotations if _KINDS[typing.get_origin(kind) or kind][1] == "a list"]
  if isinstance(value, list | tuple) and len(lists) == 1 and set(lists[0][1:]) <= {...}:
    for index, entry in enumerate(value):  # Of list[str], Sequence[str] and tuple[str, ...].
      for kind in lists[0][:1]:
        check_type(f"{what}.{index}", entry, kind)
