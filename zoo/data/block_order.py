"""The order in which training reads records that lie in blocks: blocks at random, few of them at a time."""

from typing import Any

import numpy as np

_KEPT = 4  # Windows whose order is remembered: those that the batches ahead are in.


class BlockOrder:
  """Position in the stream of epochs -> record.

  In each epoch the blocks come in another order, `window` of them after another; within these windows records come in
  any order. So a reader holds `window` blocks, and each record comes once an epoch.

  Args:
    blocks: int [blocks + 1], the first record of each block, and the end.
    window: blocks whose records are shuffled together.
    seed: 0 <= seed < 2**32

  >>> order = BlockOrder(np.array([0, 3, 5, 9]), 2, seed=0)
  >>> sorted(order(position) for position in range(9, 18))
  [0, 1, 2, 3, 4, 5, 6, 7, 8]
  """

  def __init__(self, blocks: np.ndarray, window: int, seed: int):
    self.blocks, self.window, self.seed = np.asarray(blocks, np.int64), window, seed
    self._epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    self._windows: dict[tuple[int, int], np.ndarray] = {}

  def __getstate__(self) -> dict[str, Any]:
    return {**vars(self), "_epochs": {}, "_windows": {}}

  def __call__(self, position: int) -> int:
    epoch, place = divmod(int(position), int(self.blocks[-1]))
    _, ends = self._epoch(epoch)
    window = int(np.searchsorted(ends, place, side="right"))
    return int(self._window(epoch, window)[place - (int(ends[window - 1]) if window else 0)])

  def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks in the order of an epoch, and the position at which each window ends."""
    known = self._epochs.get(epoch)
    if known is None:
      order = np.random.default_rng([self.seed, epoch]).permutation(len(self.blocks) - 1)
      ends = np.cumsum(np.diff(self.blocks)[order])
      ends = np.append(ends[self.window - 1 : -1 : self.window], ends[-1])
      # Threads may make the same one: each replaces the dict, none changes it.
      known = order, ends
      self._epochs = {**dict(list(self._epochs.items())[1 - _KEPT :]), epoch: known}
    return known

  def _window(self, epoch: int, window: int) -> np.ndarray:
    """The records of a window, in their order."""
    key = epoch, window
    records = self._windows.get(key)
    if records is None:
      blocks = self._epoch(epoch)[0][window * self.window : (window + 1) * self.window]
      records = np.concatenate([np.arange(self.blocks[block], self.blocks[block + 1]) for block in blocks])
      records = np.random.default_rng([self.seed, epoch, window]).permutation(records)
      self._windows = {**dict(list(self._windows.items())[1 - _KEPT :]), key: records}
    return records
