"""Sharding of the rows of a batch, as objectives get it: a sharding, not names of axes."""

import math

from jax.sharding import NamedSharding


def axes_of(by_row: NamedSharding | None) -> tuple[str, ...]:
  """The axes of the mesh over which rows are split."""
  part = by_row.spec[0] if by_row is not None and len(by_row.spec) else None
  return () if part is None else part if isinstance(part, tuple) else (part,)


def num_row_shards(by_row: NamedSharding | None) -> int:
  """Into how many equal pieces the rows are split."""
  return 1 if by_row is None else math.prod(by_row.mesh.shape[axis] for axis in axes_of(by_row))
