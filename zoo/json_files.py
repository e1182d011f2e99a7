"""Reads untrusted JSON files: limits on size and depth, and one-line errors."""

import json
import os
import stat
from typing import Any

from etils import epath

from zoo.errors import UserError, an

SIZE = 2**28  # Bytes: the largest published vocabularies and indexes have some 10 MB.
DEPTH = 200  # Nested lists and objects. Python's own recursion limit is near 1000.


def parse_json(text: str | bytes, depth: int = DEPTH) -> Any:
  """Parses JSON. Any mistake is a ValueError, including nesting deeper than `depth`.

  >>> parse_json('{"dim": [2, 3]}')
  {'dim': [2, 3]}
  """
  try:
    content = json.loads(text)
  except RecursionError:
    raise ValueError(f"its lists and objects are nested more than {depth} deep") from None
  # Texts with fewer brackets need no check: rows of data come by the million.
  brackets = text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")
  if brackets > depth and deeper(content, depth):
    raise ValueError(f"its lists and objects are nested more than {depth} deep")
  return content


def deeper(content: Any, depth: int) -> bool:
  """Whether lists and mappings are nested more than `depth` deep; True for one that contains itself."""
  level = [content]
  for _ in range(depth):
    level = [
      entry
      for parent in level
      if isinstance(parent, dict | list | tuple)
      for entry in (parent.values() if isinstance(parent, dict) else parent)
      if isinstance(entry, dict | list | tuple)
    ]
    if not level:
      return False
  return True


def read_json(path: str | os.PathLike, kind: type = dict, *, size: int = SIZE) -> Any:
  """Reads a JSON file, local or in a bucket.

  Args:
    path: of the file.
    kind: dict or list: the type that it must hold; `object`: any.
    size: maximum size in bytes.

  Raises:
    UserError: the file is missing, unreadable, not a regular file, too large or nested too deep, or holds another
      type.
  """
  check_file(path, size)
  try:
    content = parse_json(epath.Path(path).read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise UserError(f"{path} cannot be read as JSON: {' '.join(str(error).split())[:200]}.") from error
  if not isinstance(content, kind):
    expected = {dict: "an object", list: "a list"}.get(kind, kind.__name__)
    raise UserError(f"{path} holds {an(type(content))}, not {expected}.")
  return content


def check_file(path: str | os.PathLike, size: int = SIZE) -> None:
  """UserError for a path that is not a regular file (a pipe may block forever), or has more than `size` bytes."""
  try:
    if "://" in os.fspath(path):
      length = epath.Path(path).stat().length
    else:
      status = os.stat(path)
      length = status.st_size
      if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is not a regular file, but a {_what(status.st_mode)}. Put a copy of the file there.")
  except FileNotFoundError:
    raise UserError(f"{path} is missing.") from None
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
  if length is not None and length > size:
    raise UserError(f"{path} has {length:,} bytes; the limit for such a file is {size:,}.")


def _what(mode: int) -> str:
  kinds = {"a folder": stat.S_ISDIR, "pipe": stat.S_ISFIFO, "device": stat.S_ISCHR, "socket": stat.S_ISSOCK}
  return next((name.removeprefix("a ") for name, is_one in kinds.items() if is_one(mode)), "special file")
