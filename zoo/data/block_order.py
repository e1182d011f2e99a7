"""Shuffled order for records stored in blocks: blocks at random, few of them at a time."""

import math
from typing import Any

import numpy as np

MOST_LANES = 64


class BlockOrder:
  """Block-wise shuffle: position in the stream of epochs -> record.

  In each epoch the blocks are permuted and grouped into windows of `window` blocks; within a window records come in
  any order. So a reader holds `window` blocks, and each record comes once per epoch.

  Args:
    blocks: int [records], the block of each record.
    window: blocks whose records are shuffled together.
    seed: 0 <= seed < 2**32
    kept: number of windows whose order is cached, for batches that are prepared concurrently.

  >>> order = BlockOrder(np.array([7, 7, 7, 3, 3, 7, 4, 4]), 2, seed=0)
  >>> sorted(order(position) for position in range(8, 16))
  [0, 1, 2, 3, 4, 5, 6, 7]
  """

  def __init__(self, blocks: np.ndarray, window: int, seed: int, kept: int = 4):
    self.records = np.argsort(blocks, kind="stable")
    self.starts = np.append(np.flatnonzero(np.diff(np.asarray(blocks)[self.records], prepend=-1)), len(blocks))
    self.window, self.seed, self.kept = window, seed, kept
    self._epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    self._windows: dict[tuple[int, int], np.ndarray] = {}

  def __len__(self) -> int:
    return len(self.records)

  def __getstate__(self) -> dict[str, Any]:
    return {**vars(self), "_epochs": {}, "_windows": {}}

  def __call__(self, position: int) -> int:
    epoch, place = divmod(int(position), len(self))
    _, ends = self._epoch(epoch)
    window = int(np.searchsorted(ends, place, side="right"))
    return int(self._window(epoch, window)[place - (int(ends[window - 1]) if window else 0)])

  def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks in the order of an epoch, and the position at which each window ends."""
    order_and_ends = self._epochs.get(epoch)
    if order_and_ends is None:
      order = np.random.default_rng([self.seed, epoch]).permutation(len(self.starts) - 1)
      ends = np.cumsum(np.diff(self.starts)[order])
      ends = np.append(ends[self.window - 1 : -1 : self.window], ends[-1])
      order_and_ends = order, ends
      # Threads may compute the same one: each replaces the dict, none mutates it.
      self._epochs = {**dict(list(self._epochs.items())[-3:]), epoch: order_and_ends}
    return order_and_ends

  def _window(self, epoch: int, window: int) -> np.ndarray:
    """The records of a window, in order."""
    key = epoch, window
    records = self._windows.get(key)
    if records is None:
      blocks = self._epoch(epoch)[0][window * self.window : (window + 1) * self.window]
      records = np.concatenate([self.records[self.starts[block] : self.starts[block + 1]] for block in blocks])
      records = np.random.default_rng([self.seed, epoch, window]).permutation(records)
      self._windows = {**dict(list(self._windows.items())[1 - self.kept :]), key: records}
    return records


class LaneOrder:
  """Block-wise shuffle over hosts: position in the stream of global batches -> record; hosts read different blocks.

  The rows of a batch are divided among `lanes`. In each epoch a lane goes through a contiguous part of the records, in
  the order of a BlockOrder: so a host, whose rows belong to some lanes, reads only their blocks, one or two
  in each lane at a time. Neither lanes nor batches depend on the number of hosts. In each epoch fewer than
  `lanes` records are left out, different ones each time.

  >>> order = LaneOrder(BlockOrder(np.repeat(np.arange(4), 3), 1, seed=0), lanes=2, batch_size=4)
  >>> sorted(order(position) for position in range(12))
  [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
  """

  def __init__(self, order: BlockOrder, lanes: int, batch_size: int):
    self.order, self.lanes, self.rows = order, lanes, batch_size // lanes
    self.part = len(order) // lanes  # Records per lane and epoch.

  def __call__(self, position: int) -> int:
    step, row = divmod(int(position), self.lanes * self.rows)
    lane, row = divmod(row, self.rows)
    epoch, place = divmod(step * self.rows + row, self.part)
    return self.order(epoch * len(self.order) + lane * self.part + place)


def lanes_of(batch_size: int, blocks: int, most: int) -> int:
  """The number of lanes: the largest power of two that divides the batch, up to `most`, MOST_LANES and the blocks."""
  limit = max(1, min(most, MOST_LANES, blocks))
  return math.gcd(batch_size, 2 ** (limit.bit_length() - 1))
