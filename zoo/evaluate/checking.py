"""User-defined checks of generated texts: a function in a Python file."""

import math
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zoo.errors import UserError, did_you_mean, shown


def check_function(name: str) -> Callable[[str, Mapping[str, Any]], float]:
  """Loads the function `FILE.py:FUNCTION`: (text, record) -> a finite number, or a bool.

  Raises:
    UserError: there is no such file or function, or the file fails; when called: it fails, or returns no number.
  """
  file, colon, function = str(name).rpartition(":")
  path = Path(file).expanduser()
  if not colon or not function or path.suffix != ".py":
    raise UserError(f"check is {shown(name)}. It must be FILE.py:FUNCTION.")
  if not path.is_file():
    raise UserError(f"check: no such file {path}.")
  try:
    names = runpy.run_path(str(path))
  except Exception as error:
    raise UserError(f"check: {path} cannot be run: {type(error).__name__}: {error}.") from error
  if not callable(names.get(function)):
    functions = [key for key, value in names.items() if callable(value) and not key.startswith("__")]
    near = did_you_mean(function, functions)
    raise UserError(f"check: {path} has no function '{function}'.{near} It has: {', '.join(functions) or 'none'}.")

  def check(text: str, record: Mapping[str, Any]) -> float:
    try:
      value = float(names[function](text, record))
    except Exception as error:
      raise UserError(f"check: {name} fails on {shown(text, 80)}: {type(error).__name__}: {error}.") from error
    if not math.isfinite(value):
      raise UserError(
        f"check: {name} gives {value} for {shown(text, 80)}. It must be a finite number, or true or false."
      )
    return value

  return check
