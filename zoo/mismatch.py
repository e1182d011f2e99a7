"""What keeps the arrays in a file from being those that are wanted, in a few words."""

from collections.abc import Mapping
from typing import Any


def mismatch(found: Mapping[str, Any], wanted: Mapping[str, Any], most: int = 3) -> str:
  """`2 missing (a, b); 1 extra (c); 1 different (d (3,) instead of (4,))`, or an empty text.

  Args:
    found: kind of each array by its path: its shape, or dtype and shape.
    wanted: likewise.
    most: how many paths to name of each sort.
  """
  shared = sorted(name for name in found.keys() & wanted.keys() if found[name] != wanted[name])
  sorts = {
    "missing": sorted(wanted.keys() - found.keys()),
    "extra": sorted(found.keys() - wanted.keys()),
    "different": [f"{name} {found[name]} instead of {wanted[name]}" for name in shared],
  }
  texts = (
    f"{len(names)} {sort} ({', '.join(names[:most])}{', ...' if len(names) > most else ''})"
    for sort, names in sorts.items()
    if names
  )
  return "; ".join(texts)
