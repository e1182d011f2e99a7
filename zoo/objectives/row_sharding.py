"""Sharding of the rows of a batch, for objectives, which get a sharding instead of axis names."""

import math

from jax.sharding import NamedSharding


def axes_of(by_row: NamedSharding | None) -> tuple[str, ...]:
  """The mesh axes that shard rows."""
  part = by_row.spec[0] if by_row is not None and len(by_row.spec) else None
  return () if part is None else part if isinstance(part, tuple) else (part,)


def num_row_shards(by_row: NamedSharding | None) -> int:
  """The number of shards of the rows."""
  return 1 if by_row is None else math.prod(by_row.mesh.shape[axis] for axis in axes_of(by_row))
