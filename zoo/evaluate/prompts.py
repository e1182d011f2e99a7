"""Templates and class names for zero-shot classification: literal, built-in, or from a file."""

import os
from collections.abc import Sequence

from zoo.data import package_data
from zoo.data.bad_records import utf8
from zoo.data.sources import read_file
from zoo.errors import UserError, shown

ON_BOARD = ("imagenet",)  # The 80 templates of CLIP's paper, and names of the 1,000 classes.


def templates(texts: str | Sequence[str]) -> list[str]:
  """Templates from a name of ON_BOARD, a file with one per line, or the strings themselves.

  >>> len(templates("imagenet")), templates("a drawing of {}")
  (80, ['a drawing of {}'])
  """
  return [texts] if isinstance(texts, str) and "{}" in texts else _named(texts, "templates")


def class_names(names: str | Sequence[str]) -> list[str]:
  """Class names from a name of ON_BOARD, a file with one per line, or the names themselves.

  >>> class_names("imagenet")[:2]
  ['tench', 'goldfish']
  """
  return _named(names, "class_names")


def _named(texts: str | Sequence[str], what: str) -> list[str]:
  if not isinstance(texts, str):
    return list(texts)
  if texts in ON_BOARD:
    return package_data.lines(f"prompts/{texts}_{what}.txt")
  if not os.path.isfile(os.path.expanduser(texts)):
    raise UserError(
      f"{what} is {shown(texts)}. It must be a list of texts, {' or '.join(ON_BOARD)}, or a file with one a line."
    )
  lines = utf8(read_file(os.path.expanduser(texts)), texts).splitlines()
  return [line.strip() for line in lines if line.strip()]
