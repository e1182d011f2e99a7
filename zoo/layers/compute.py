"""Options of how a model is computed, which every factory takes: `**options: Unpack[Compute]`."""

import types
import typing
from typing import Annotated, Any, TypedDict

from zoo.layers import sizes


class Compute(TypedDict, total=False):
  """How a model is computed; none of them changes the model. Annotations hold the defaults.

  dropout: chance to drop an entry of what a sublayer adds, and wherever else a family drops some.
  drop_path: chance to drop the sublayers of the last layer for an example; it rises from 0 at the first.
  dtype: what is computed in, "bfloat16" or "float16"; None: float32.
  scan: True: one compiled layer for all; False: each has its own; None: as `zoo.layers.stack.stack` finds best.
  remat: what the backward pass computes again, see there; None: nothing.
  """

  dropout: Annotated[float, 0.0]
  drop_path: Annotated[float, 0.0]
  dtype: Annotated[str | None, None]
  scan: Annotated[bool | None, None]
  remat: Annotated[str | None, None]


def resolve(kind: type, options: Any) -> types.SimpleNamespace:
  """Options of a TypedDict as attributes, with its defaults for those that are not given, checked.

  Args:
    kind: `Compute`, or a TypedDict that has its entries too.
    options: what a factory was given by `**options: Unpack[kind]`.

  Returns:
    a namespace of all entries of `kind`; `dtype` is a dtype or None, and `stacking` the keywords of
    `zoo.layers.stack.stack`.

  Raises:
    TypeError: an option that `kind` does not have.
    ValueError: a rate that is no probability, a dtype that is none.

  >>> compute = resolve(Compute, {"dropout": 0.1})
  >>> compute.dropout, compute.dtype, compute.stacking
  (0.1, None, {'scan': None, 'remat': None, 'drop_path': 0.0})
  """
  hints = typing.get_type_hints(kind, include_extras=True)
  if unknown := [name for name in options if name not in hints]:
    raise TypeError(f"There is no option {', '.join(map(repr, unknown))}. There are: {', '.join(hints)}.")
  values = {name: options.get(name, hint.__metadata__[0]) for name, hint in hints.items()}
  sizes.rate(dropout=values["dropout"], drop_path=values["drop_path"])
  values["dtype"] = sizes.compute_dtype(values["dtype"])
  stacking = {name: values[name] for name in ("scan", "remat", "drop_path")}
  return types.SimpleNamespace(**values, stacking=stacking)


def computing(options: Any, kind: type = Compute) -> tuple[float, Any, dict[str, Any]]:
  """What factories need of `resolve`: dropout, the dtype or None, and the keywords of `zoo.layers.stack.stack`."""
  compute = resolve(kind, options)
  return compute.dropout, compute.dtype, compute.stacking
