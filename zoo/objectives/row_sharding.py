"""How the rows of a batch lie on devices, as an objective is told: by a sharding, not by the names of axes."""

import math

from jax.sharding import NamedSharding


def axes_of(by_row: NamedSharding | None) -> tuple[str, ...]:
  """The axes of the mesh over which rows are split."""
  part = by_row.spec[0] if by_row is not None and len(by_row.spec) else None
  return () if part is None else part if isinstance(part, tuple) else (part,)


def pieces(by_row: NamedSharding | None) -> int:
  """Into how many equal pieces the rows are split."""
  return 1 if by_row is None else math.prod(by_row.mesh.shape[axis] for axis in axes_of(by_row))
