"""Options of a source, after its path: `csv:rows.csv?encoding=cp1252&columns=text,label`."""

import re
from collections.abc import Mapping
from urllib.parse import unquote

from zoo.errors import UserError, did_you_mean
from zoo.storage import is_remote

_OPTIONS = re.compile(r"\?(?P<options>[A-Za-z_]+=[^/?]*)$")


def split_options(where: str, known: Mapping[str, str]) -> tuple[str, dict[str, str]]:
  """Splits a location -> the location without options, and the options.

  Args:
    where: a source's location. A `?` without a following `name=` is part of a pattern.
    known: option -> its description, for messages.

  Raises:
    UserError: an option is unknown, or has no value.

  >>> split_options("a?.csv?columns=text,label", {"columns": "names"})
  ('a?.csv', {'columns': 'text,label'})
  """
  match = _OPTIONS.search(where)
  if match is None:
    return where, {}
  options: dict[str, str] = {}
  for part in match["options"].split("&"):
    name, _, value = part.partition("=")
    if name not in known and is_remote(where):  # Part of the URL.
      return where, {}
    if name not in known or not value:
      about = "; ".join(f"{option}={what}" for option, what in known.items())
      raise UserError(f"{where} has no option '{name}' with a value.{did_you_mean(name, known)} There are: {about}.")
    options[name] = unquote(value)
  return where[: match.start()], options
