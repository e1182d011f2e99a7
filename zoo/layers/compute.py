"""Compute options that every factory takes: `**options: Unpack[Compute]`."""

import types
import typing
from typing import Annotated, Any, TypedDict

from zoo.layers import sizes


class Compute(TypedDict, total=False):
  """Compute options: none of them changes the model's parameters. Annotations hold the defaults.

  dropout: rate of dropout on the output of every sublayer, and wherever else a family has dropout.
  drop_path: rate of stochastic depth in the last layer; it rises linearly from 0 in the first.
  dtype: computation dtype, "bfloat16" or "float16"; None: float32.
  scan: True: `nn.scan` over layers; False: an unrolled loop; None: chosen by `zoo.layers.stack.stack`.
  remat: rematerialisation policy, see there; None: none.
  """

  dropout: Annotated[float, 0.0]
  drop_path: Annotated[float, 0.0]
  dtype: Annotated[str | None, None]
  scan: Annotated[bool | None, None]
  remat: Annotated[str | None, None]


def resolve(kind: type, options: Any) -> types.SimpleNamespace:
  """Resolves options of a TypedDict to validated attributes, with its defaults for missing ones.

  Args:
    kind: `Compute`, or a TypedDict that has its entries too.
    options: the keyword arguments of a factory, `**options: Unpack[kind]`.

  Returns:
    a namespace of all entries of `kind`; `dtype` is a dtype or None, and `stacking` the keywords of
    `zoo.layers.stack.stack`.

  Raises:
    TypeError: an option that `kind` does not have.
    ValueError: a rate outside [0, 1), or an unknown dtype.

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
  """The part of `resolve` that factories need: dropout, the dtype or None, and keywords of `zoo.layers.stack.stack`."""
  compute = resolve(kind, options)
  return compute.dropout, compute.dtype, compute.stacking
