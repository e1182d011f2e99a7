"""Attention patterns of blocks and of listed keys: BigBird's window, global and random blocks.

https://arxiv.org/abs/2007.14062, section 2.
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from zoo.layers.patterns import ALL, NONE, SOME, Pattern, ints


@dataclasses.dataclass(frozen=True)
class Listed(Pattern):
  """Each query's keys by name: query i sees the keys table[i], and a query beyond the table sees none.

  Args:
    table: a tuple of a tuple of ints for each query; or of one such table for each head.
  """

  table: tuple

  @property
  def heads(self):
    return len(self.table) if self.table and self.table[0] and isinstance(self.table[0][0], tuple) else None

  def __call__(self, query_positions, key_positions):
    tables = self.table if self.heads else (self.table,)
    pairs = [(h, i, key) for h, table in enumerate(tables) for i, keys in enumerate(table) for key in keys]
    at = np.array(pairs, np.int64).reshape(-1, 3).T
    lookup = np.zeros((len(tables), max(len(table) for table in tables) + 1, at[2].max(initial=0) + 2), bool)
    lookup[tuple(at)] = True
    query, key = (x.clip(0, size - 1) for x, size in zip((query_positions, key_positions), lookup.shape[1:]))
    visible = (lookup if isinstance(query, np.ndarray) else jnp.asarray(lookup))[:, query, key]
    return visible if self.heads else visible[0]


def random(count: int, length: int, *, seed: int, heads: int | None = None) -> Listed:
  """`count` random keys for each of `length` queries, others for each head if there are `heads`; see `Blocks`."""
  ints(count=count, length=length, heads=heads, least=1)
  if count > length:
    raise ValueError(f"count is {count}, more than the {length} keys. Lower it.")
  draw = np.random.default_rng(seed)
  pick = lambda: tuple(tuple(sorted(draw.choice(length, count, replace=False).tolist())) for _ in range(length))
  return Listed(pick() if heads is None else tuple(pick() for _ in range(heads)))


@dataclasses.dataclass(frozen=True)
class Blocks(Pattern):
  """A pattern of blocks of `size` tokens: where it lets block i see block j, all tokens of i see all of j.

  >>> from zoo.layers.patterns import GlobalTokens, Window
  >>> bigbird = Blocks(64, Window(1, 1) | GlobalTokens((0, -1)) | random(3, 16, seed=0))  # of 16 x 64 tokens
  """

  size: int
  pattern: Pattern

  def __post_init__(self):
    ints(size=self.size, least=1)

  @property
  def grain(self):
    return self.size * self.pattern.grain

  @property
  def heads(self):
    return self.pattern.heads

  def at(self, length):
    return Blocks(self.size, self.pattern.at(-(-length // self.size)))

  def __call__(self, query_positions, key_positions):
    return self.pattern(query_positions // self.size, key_positions // self.size)

  def tiles(self, size, count):
    if size % self.size == 0 and size > self.size:
      return _coarser(self.tiles(self.size, count * (size // self.size)), size // self.size)
    if self.size % size:
      fine = math.gcd(size, self.size)
      return _coarser(self.tiles(fine, count * (size // fine)), size // fine)
    fold = self.size // size
    blocks = self.pattern.tiles(1, -(-count // fold))
    return blocks.repeat(fold, axis=-2).repeat(fold, axis=-1)[..., :count, :count]


def _coarser(tiles, fold):
  shape = *tiles.shape[:-2], tiles.shape[-2] // fold, fold, tiles.shape[-1] // fold, fold
  grid = tiles.reshape(shape)
  return np.where((grid == ALL).all((-3, -1)), ALL, np.where(grid.any((-3, -1)), SOME, NONE)).astype(np.int8)
