"""Axial position embeddings: positions as cells of a grid, with a table for its rows and one for its columns."""

import math

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial
from zoo.layers.positions import TooLong


class Axial(nn.Module):
  """Axial position embeddings: [rows[p // width], columns[p % width]], float32.

  A million positions need two thousand vectors. Source: https://arxiv.org/abs/1912.12180; as in the code of
  https://arxiv.org/abs/2001.04451

  Args:
    shape: (height, width) of the grid.
    dims: widths of the two parts.
    dropout: rate at which a column of the grid is dropped for a whole example.
  """

  shape: tuple[int, ...]
  dims: tuple[int, ...]
  dropout: float = 0.0
  embedding_init: nn.initializers.Initializer = initial.normal(1.0)

  @nn.compact
  def __call__(self, length, positions=None, *, batch=1, train=False):
    """length, or positions int32 [batch or 1, length] -> float32 [batch or 1, length, sum of dims]

    Raises:
      TooLong: the grid has fewer cells.
    """
    height, width = self.shape
    if length > math.prod(self.shape):
      raise TooLong(f"Axial ({height} x {width})", length, math.prod(self.shape))
    rows = self.param("rows", self.embedding_init, (height, self.dims[0]))
    columns = self.param("columns", self.embedding_init, (width, self.dims[1]))
    if positions is None:  # By copies and not by a lookup, whose gradient would be a scatter.
      full = -(-length // width)
      parts = rows[:full, None], columns[None]
      cells = [jnp.broadcast_to(part, (full, width, dim)) for part, dim in zip(parts, self.dims, strict=True)]
      x = jnp.concatenate(cells, axis=-1).reshape(1, full * width, -1)[:, :length]
      positions = jnp.arange(length, dtype=jnp.int32)[None]
    else:
      x = jnp.concatenate([rows[positions // width], columns[positions % width]], axis=-1)
    if not train or not self.dropout:
      return x
    kept = nn.Dropout(self.dropout, deterministic=False)(jnp.ones((batch, width)))
    return x * jnp.take_along_axis(kept, jnp.broadcast_to(positions % width, (batch, length)), axis=1)[..., None]
