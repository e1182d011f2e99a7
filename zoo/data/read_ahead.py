"""Read-ahead: threads that fetch the blocks of remote files for the next batches."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from zoo.errors import UserError
from zoo.progress import silent

FETCHES = 4  # Blocks at the same time.
_KNOWN = 1000  # Blocks that are not requested again immediately.


class ReadAhead:
  """Runs until `close`; errors are ignored here and raised when the record is read.

  Args:
    source: `fetch(block)` is called for its `blocks`.
    records_of: step -> the records that this host reads.
    first: first step.
    ahead: number of steps to read ahead.
  """

  def __init__(self, source: Any, records_of: Callable[[int], Iterable[int]], first: int, ahead: int):
    self._source, self._records_of, self._first, self._ahead = source, records_of, first, ahead
    self._step, self._closed = first, False
    self._condition = threading.Condition()
    self._pool = ThreadPoolExecutor(FETCHES)
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._thread.start()

  def reached(self, step: int) -> None:
    """Called when the batch of a step has been read."""
    with self._condition:
      self._step = step
      self._condition.notify()

  def close(self) -> None:
    """Stops the threads; running fetches are completed unless the process ends."""
    with self._condition:
      self._closed = True
      self._condition.notify()
    self._thread.join()
    self._pool.shutdown(wait=False, cancel_futures=True)

  def _run(self) -> None:
    known: dict[int, None] = {}
    for step in itertools.count(self._first):
      with self._condition:
        while not self._closed and step > self._step + self._ahead:
          self._condition.wait()
        if self._closed:
          return
      for block in dict.fromkeys(int(self._source.blocks[record]) for record in self._records_of(step)):
        if block not in known:
          self._pool.submit(self._fetch, block)
        known.pop(block, None)
        known[block] = None
        if len(known) > _KNOWN:
          del known[next(iter(known))]

  def _fetch(self, block: int) -> None:
    with contextlib.suppress(UserError), silent():  # Training goes on meanwhile.
      self._source.fetch(block)
