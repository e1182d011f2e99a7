"""Names in a config become functions: `{"name": "causal_lm", ...}` is `zoo.objectives.causal_lm.causal_lm(...)`.

The naming convention is the registry: a new file is found without being listed anywhere.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zoo.errors import UserError, did_you_mean


def names(package: str) -> list[str]:
  """The functions that `zoo.<package>` offers: its modules that hold a function of their own name."""
  folder = importlib.import_module(f"zoo.{package}").__path__
  modules = sorted(info.name for info in pkgutil.iter_modules(folder))
  return [name for name in modules if hasattr(importlib.import_module(f"zoo.{package}.{name}"), name)]


def named(package: str, name: str) -> Callable:
  """The function `name` of `zoo/<package>/<name>.py`. Raises UserError with the names there are."""
  if not isinstance(name, str) or name not in names(package):
    offered = names(package)
    raise UserError(f"zoo/{package} has no '{name}'.{did_you_mean(str(name), offered)} It has: {', '.join(offered)}.")
  return getattr(importlib.import_module(f"zoo.{package}.{name}"), name)


def call(package: str, options: Mapping[str, Any], *args: Any, **supplied: Any) -> Any:
  """Calls the function that the config section `options` names, with its other entries as keyword arguments.

  Args:
    package: folder of the zoo, e.g. `objectives`.
    options: `{"name": ..., **keywords}`; the keywords are checked against the function's signature.
    *args: positional arguments that the caller supplies, e.g. the model.
    **supplied: keywords that the caller supplies and a config may not set.
  """
  if "name" not in options:
    raise UserError(f"A section for zoo/{package} needs a 'name'. It may be: {', '.join(names(package))}.")
  options = dict(options)
  name = options.pop("name")
  function = named(package, name)
  positional = list(inspect.signature(function).parameters)[: len(args)]
  check_options(function, options, name, given=[*positional, *supplied])
  return function(*args, **options, **supplied)


def check_options(function: Callable, options: Mapping[str, Any], what: str, given: Iterable[str] = ()) -> None:
  """Refuses options that `function` does not take, values of another type, and missing ones. `given` are not the user's."""
  given = set(given)
  parameters = inspect.signature(function).parameters
  takes = {name: p for name, p in parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
  offered = [name for name in takes if name not in given]
  open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
  for name, value in options.items():
    if name not in offered:
      if open_ended and name not in given:
        continue
      raise UserError(f"{what} takes no '{name}'.{did_you_mean(name, offered)} It takes: {', '.join(offered)}.")
    check_type(f"{what}.{name}", value, takes[name].annotation)
  missing = [name for name in offered if takes[name].default is inspect.Parameter.empty and name not in options]
  if missing:
    raise UserError(f"{what} needs {', '.join(repr(name) for name in missing)}. Add it to the config.")


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def check_type(what: str, value: Any, annotation: Any) -> None:
  """Refuses a value that is plainly not of the annotated type: int, float, bool, str, or one of these | None."""
  kinds = [kind for kind in getattr(annotation, "__args__", (annotation,)) if kind is not type(None)]
  optional = type(None) in getattr(annotation, "__args__", ())
  if not kinds or any(kind not in _KINDS for kind in kinds) or (optional and value is None):
    return
  fits = any(
    isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) or (kind is float and type(value) is int)
    for kind in kinds
  )
  if not fits:
    wanted = " or ".join(_KINDS[kind] for kind in kinds) + (" or none" if optional else "")
    raise UserError(f"{what} is {value!r} ({type(value).__name__}). It must be {wanted}.")
