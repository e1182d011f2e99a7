"""Layer-wise learning-rate decay, as in ELECTRA (https://arxiv.org/abs/2003.10555, appendix A.2).

Lower layers, which should change less in fine-tuning, have lower rates. BEiT (https://arxiv.org/abs/2106.08254) and its
relatives are fine-tuned in the same way.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from zoo.config.registry import check_type
from zoo.errors import UserError
from zoo.optim.schedules import check
from zoo.tree import flatten

# Of a path within a stack: its parent, its name, and the number of the layer, or of the kind of layers in a scan.
LOOPED = re.compile(r"((?:.*?/)?)([^/]+)/layer_(\d+)/.*")
SCANNED = re.compile(r"((?:.*?/)?)([^/]+)/layers/(?:layer_(\d+)/)?.*")


class Stacked(NamedTuple):
  """Location of a parameter: parent and name of the stack, its layer indices, and whether they are scanned."""

  parent: str
  name: str
  layers: tuple[int, ...]
  scanned: bool


def layer_multipliers(params: Any, decay: Any, calls: Sequence[str]) -> list[tuple[str, float | tuple[float, ...]]]:
  """(pattern, factor) of every parameter, for `optimizer.multipliers`; a tuple for scanned layers.

  Of a stack of n layers, layer i from 0 has decay ** (n - i). What a model computes before its layers, embeddings and
  positions, has decay ** (n + 1); what it computes after them, norms, poolers and heads, has 1. Stacks within one
  module follow each other; those of an encoder and a decoder, or of two towers, each count from their own top.

  Args:
    params: the parameters or their shapes.
    decay: above 0 and at most 1.
    calls: paths of the model's modules, in the order in which it first calls them.

  Raises:
    UserError: `decay` is out of range, or the model has no layers.

  >>> params = {"embed": {"embedding": 0.0}, "head": {"kernel": 0.0}, "stack": {"layer_0": {"scale": 0.0}}}
  >>> [factor for _, factor in layer_multipliers(params, 0.5, ["embed", "stack", "stack/layer_0", "head"])]
  [0.25, 1.0, 0.5]
  """
  check_type("optimizer.layer_decay", decay, float)
  check(0 < decay <= 1, "optimizer.layer_decay", decay, "above 0 and at most 1")
  shapes = flatten(params)
  stacked = {path: place for path, place in ((path, _stacked(path, shapes)) for path in shapes) if place is not None}
  stacks: dict[tuple[str, str], int] = {}  # (parent, name) -> layers
  for parent, name, layers, _ in stacked.values():
    stacks[parent, name] = max(stacks.get((parent, name), 0), *(number + 1 for number in layers))
  if not stacks:
    raise UserError("optimizer.layer_decay is of models whose layers are a stack, this one has none. Leave it out.")
  order = _first_calls(calls)
  stacks = dict(sorted(stacks.items(), key=lambda item: order["".join(item[0])]))
  depths = {parent: sum(n for (other, _), n in stacks.items() if other == parent) for parent, _ in stacks}
  starts = {parent: min(order[parent + name] for other, name in stacks if other == parent) for parent in depths}
  multipliers: list[tuple[str, float | tuple[float, ...]]] = []
  for path in shapes:
    pattern = rf"\A{re.escape(path)}"  # Without \A it would also match the end of longer paths.
    if path not in stacked:
      multipliers.append((pattern, float(decay) ** _beside(path, depths, starts, order)))
      continue
    parent, name, layers, scanned = stacked[path]
    siblings = [other for of, other in stacks if of == parent]
    below = sum(stacks[parent, other] for other in siblings[: siblings.index(name)])
    factors = tuple(float(decay) ** (depths[parent] - below - number) for number in layers)
    multipliers.append((pattern, factors if scanned else factors[0]))
  return multipliers


def _stacked(path: str, shapes: Mapping[str, Any]) -> Stacked | None:
  match = SCANNED.fullmatch(path)
  if match is None:
    match = LOOPED.fullmatch(path)
    return None if match is None else Stacked(match[1], match[2], (int(match[3]),), False)
  scan = f"{match[1]}{match[2]}/layers/"
  kinds = {other.removeprefix(scan).partition("/")[0] for other in shapes if other.startswith(scan)}
  kinds = len(kinds) if match[3] is not None else 1
  return Stacked(match[1], match[2], tuple(int(match[3] or 0) + kinds * i for i in range(shapes[path].shape[0])), True)


def _beside(path: str, depths: Mapping[str, int], starts: Mapping[str, int], order: Mapping[str, int]) -> int:
  """The exponent of a parameter outside of all stacks: of the nearest module that holds it and a stack."""
  *modules, _ = path.split("/")
  while True:
    holder = "".join(f"{module}/" for module in modules)
    parents = [parent for parent in depths if parent.startswith(holder)]
    if parents:
      break
    modules.pop()
  bottom = 1 + max(depths[parent] for parent in parents)
  rest = path.removeprefix(holder).split("/")
  if len(rest) == 1:  # Of the holder itself: tokens that go in with the others, or a scale of what comes out.
    return 0 if path.endswith(("scale", "bias")) else bottom
  called, first, last = order[holder + rest[0]], *(f(starts[parent] for parent in parents) for f in (min, max))
  # Between two stacks: the embedding of a decoder's tokens, or the projection of what the first one gives.
  return bottom if called < first or called < last and rest[-1] == "embedding" else 0


def _first_calls(calls: Sequence[str]) -> dict[str, int]:
  """Path of a module, or of one that it is within -> the number of its first call."""
  order: dict[str, int] = {}
  for number, path in enumerate(calls):
    parts = path.split("/")
    for end in range(1, len(parts) + 1):
      order.setdefault("/".join(parts[:end]), number)
  return order
