"""Watchdog: exits a hanging process, for which all other hosts would wait."""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Hashable
from typing import Self

from zoo.errors import TRY_AGAIN, tell

STDERR = 2  # Even if sys.stderr was replaced.
TICK = 5.0  # Seconds between two checks.


class Watchdog:
  """Watchdog thread: when progress stops, dumps the stack of every thread and exits the process (TRY_AGAIN).

  Time during which the process was stopped (SIGSTOP, a migrated machine) does not count. If something holds
  the GIL, so that no Python thread runs, the C thread of faulthandler does the same after twice the time, with
  status 1; it counts every second.

  Args:
    step: seconds within which a step must be done after the previous one.
    other: seconds for everything else: set-up, compilation, evaluation, waiting for a checkpoint, shutdown.
    host: "host 0 of 2" for the message; may be set later.
    end: called with the status.
  """

  def __init__(self, step: float, other: float, host: str = "", end: Callable[[int], object] = os._exit):
    self.limits = {"step": step, "other": other}
    self.host, self._end = host, end
    self._phase, self._spent, self._steps = "other", 0.0, 0
    self._compiled: set[Hashable] = set()
    self._closed = threading.Event()
    self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

  def __enter__(self) -> Self:
    self._thread.start()
    return self

  def __exit__(self, *_: object) -> None:
    self._closed.set()
    self._thread.join()
    faulthandler.cancel_dump_traceback_later()

  def step_done(self) -> None:
    """Resets the timer after a step: the next one has `step` seconds."""
    self._phase, self._spent, self._steps = "step", 0.0, self._steps + 1

  @contextlib.contextmanager
  def other(self) -> Generator[None]:
    """Context in which the time limit is `other` seconds instead of a step's."""
    before = self._phase
    self._phase, self._spent = "other", 0.0
    yield
    self._phase, self._spent = before, 0.0

  @contextlib.contextmanager
  def compiling(self, program: Hashable) -> Generator[bool]:
    """As `other` the first time it sees `program`, else no-op; yields whether it is the first time."""
    if program in self._compiled:
      yield False
      return
    self._compiled.add(program)
    with self.other():
      yield True

  def _watch(self) -> None:
    tick = min(TICK, *(limit / 4 for limit in self.limits.values()))
    before = time.monotonic()
    while not self._closed.wait(tick):
      now = time.monotonic()
      self._spent += min(now - before, 2 * tick)
      before, limit = now, self.limits[self._phase]
      # If no Python thread runs again, this timer is no longer reset.
      faulthandler.dump_traceback_later(2 * limit, exit=True, file=STDERR)
      if self._spent > limit:
        self._bite(limit)

  def _bite(self, limit: float) -> None:
    what = (
      "no step was finished" if self._phase == "step" else "setting up, compiling, evaluating or saving did not finish"
    )
    tell(
      f"Error: {self.host or 'the process'} hangs: {what} for {limit:g} seconds (timeouts.{self._phase}), "
      f"{self._steps} steps after it started. Stack traces of all threads follow. Run the same command again to "
      "resume from the newest checkpoint."
    )
    faulthandler.dump_traceback(all_threads=True, file=STDERR)
    with contextlib.suppress(OSError):
      sys.stdout.flush()
    self._end(TRY_AGAIN)
