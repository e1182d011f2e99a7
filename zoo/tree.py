"""Pytree paths: names of arrays, patterns that select them, and summaries of mismatched trees.

A name is the path to an array: `stack/layer_0/feed_forward/up/kernel`.

A pattern is a regular expression that matches whole segments at the *end* of a path: `kernel`, `up/kernel` and
`layer_0/.*` all match the path above, `p/kernel` does not. So a pattern for a parameter also finds its optimiser state,
whose path (`opt_state/0/mu/stack/layer_0/...`) ends alike.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from zoo.errors import UserError


def path_name(path: tuple) -> str:
  """The name of a key path of `jax.tree_util.tree_map_with_path`: `stack/layer_0/...`."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def path_names(tree: Any) -> list[str]:
  """The names of all arrays of a tree, in the tree's order."""
  return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def variables(params: Any) -> dict[str, Any]:
  """Variables for `model.apply`: {"params": params}; a dict of collections is returned unchanged.

  `zoo.load` returns the latter for a model with more than parameters, such as batch statistics.
  """
  has_collections = isinstance(params, Mapping) and isinstance(params.get("params"), Mapping)
  return dict(params) if has_collections else {"params": params}


def flatten(tree: Any) -> dict[str, Any]:
  """Flattens a tree to a dict: name -> array."""
  return {path_name(path): array for path, array in jax.tree_util.tree_leaves_with_path(tree)}


def unflatten(arrays: Mapping[str, Any]) -> dict[str, Any]:
  """The nested dict whose arrays have these names; the inverse of `flatten`."""
  tree: dict[str, Any] = {}
  for name, array in arrays.items():
    *folders, last = name.split("/")
    branch = tree
    for folder in folders:
      branch = branch.setdefault(folder, {})
    branch[last] = array
  return tree


def row_axis(path):
  """The batch axis of an array that is carried for each row: 1 in scanned layers, else 0.

  >>> row_axis("stack/layer_1/memory"), row_axis("stack/layers/memory")
  (0, 1)
  """
  return path.split("/").count("layers")


def matches(pattern: str, name: str) -> bool:
  """Whether `pattern` matches whole segments at the end of `name`."""
  return re.fullmatch(f"(?:.*/)?(?:{pattern})", name) is not None


def matches_any(patterns: Iterable[str], name: str) -> bool:
  """Whether one of `patterns` matches `name`."""
  return any(matches(pattern, name) for pattern in patterns)


def check_pattern(pattern: Any, names: list[str], what: str, named: str = "parameter") -> None:
  """UserError unless a pattern is a regular expression that matches one of `names`; messages name its source `what`."""
  if not isinstance(pattern, str):
    raise UserError(
      f"{what}: {pattern!r} is not a pattern. A pattern is a str such as 'embed/embedding' or 'image/.*'."
    )
  try:
    re.compile(pattern)
  except re.error as error:
    raise UserError(f"{what}: '{pattern}' is not a regular expression: {error}.") from None
  if not any(matches(pattern, name) for name in names):
    raise UserError(f"{what}: '{pattern}' matches no {named}. The nearest: {', '.join(nearest(pattern, names))}.")


def nearest(pattern: str, names: list[str], count: int = 3) -> list[str]:
  """The `count` names most like `pattern`, comparing with as many trailing segments as the pattern has."""
  segments = pattern.count("/") + 1

  def likeness(name: str) -> float:
    parts = name.split("/")
    spans = ["/".join(parts[i : i + segments]) for i in range(max(len(parts) - segments, 0) + 1)]
    return max(difflib.SequenceMatcher(None, pattern, span).ratio() for span in spans)

  return sorted(names, key=likeness, reverse=True)[:count]


def mismatch(actual: Mapping[str, Any], expected: Mapping[str, Any], most: int = 3) -> str:
  """`2 missing (a, b); 1 extra (c); 1 different (d (3,) instead of (4,))`, or an empty text.

  Args:
    actual: shape, or dtype and shape, of each array by its path.
    expected: likewise.
    most: number of paths to name of each sort.
  """
  shared = sorted(name for name in actual.keys() & expected.keys() if actual[name] != expected[name])
  sorts = {
    "missing": sorted(expected.keys() - actual.keys()),
    "extra": sorted(actual.keys() - expected.keys()),
    "different": [f"{name} {actual[name]} instead of {expected[name]}" for name in shared],
  }
  texts = (
    f"{len(names)} {sort} ({', '.join(names[:most])}{', ...' if len(names) > most else ''})"
    for sort, names in sorts.items()
    if names
  )
  return "; ".join(texts)
