"""Reports long work: a line after two seconds and then ever more rarely, the same in terminals, notebooks and logs.

    with progress("tokenising lines:train.txt", len(source), "documents") as advance:
      for document in source:
        ...
        advance(1)

Lines go to stderr, in a notebook to the cell's output, or where the caller wants them: `with reported_by(note): ...`.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

from zoo.errors import tell

FIRST = 2.0  # Seconds until the first line.
MOST = 60.0  # Longest time between two lines, in seconds.


def say(line: str) -> None:
  """Writes a line to stderr; in a notebook, which shows that as an error, to stdout."""
  if "ipykernel" in sys.modules:
    print(line, flush=True)
  else:
    tell(line)


_report: ContextVar[Callable[[str], Any]] = ContextVar("report", default=say)


@contextlib.contextmanager
def reported_by(report: Callable[[str], Any]) -> Generator[None]:
  """Context in which the lines of `progress` go to `report`."""
  before = _report.set(report)
  try:
    yield
  finally:
    _report.reset(before)


@contextlib.contextmanager
def silent() -> Generator[None]:
  """Context in which `progress` reports nothing."""
  with reported_by(lambda line: None):
    yield


@contextlib.contextmanager
def progress(what: str, total: float | None = None, unit: str = "") -> Generator[Callable[[float], None]]:
  """Context of work that may take long -> `advance(count)`, to be called when `count` more of `total` are done.

  Args:
    what: the work, e.g. "reading runs/a".
    total: how much there is to do; None: unknown.
    unit: what is counted, e.g. "examples".
  """
  work = Work(what, total, unit, _report.get(), time.monotonic())
  finished = threading.Event()

  def watch() -> None:
    while not finished.wait(work.due - time.monotonic()):
      work.look(time.monotonic())

  # Work that does not return to Python for minutes, such as compiling, is reported too.
  thread = threading.Thread(target=watch, daemon=True)
  thread.start()
  try:
    yield work.advance
  except BaseException:
    finished.set()
    thread.join()
    raise
  finished.set()
  thread.join()
  work.finish(time.monotonic())


class Work:
  """The state of work, and the lines about it; times are seconds of one clock.

  Args:
    what, total, unit: as in `progress`.
    report: called with a line.
    start: the time now.

  Attributes:
    due: the time of the next line.
  """

  def __init__(self, what: str, total: float | None, unit: str, report: Callable[[str], Any], start: float):
    self._what, self._total, self._unit, self._report = what, total, unit, report
    self._start, self._done, self._reported = start, 0.0, False
    self.due = start + FIRST

  def advance(self, count: float) -> None:
    """Adds to what is done."""
    self._done += count

  def look(self, now: float) -> None:
    """Reports if a line is due; each waits twice as long as the one before it."""
    if now < self.due:
      return
    self._report(f"{self._what}: {self._state(now)}")
    self._reported = True
    self.due = now + min(MOST, 2 * (now - self._start))

  def finish(self, now: float) -> None:
    """Reports the end of work that was reported before."""
    if self._reported:
      self._report(f"{self._what}: done in {tqdm.format_interval(now - self._start)}")

  def _state(self, now: float) -> str:
    elapsed = now - self._start
    if not self._done and self._total is None:
      return f"{tqdm.format_interval(elapsed)} so far"
    if self._total is None:
      return f"{self._done:,.0f} {self._unit}"
    state = f"{self._done:,.0f} of {self._total:,.0f} {self._unit}"
    if not 0 < self._done < self._total:
      return state
    return f"{state}, {tqdm.format_interval(elapsed * (self._total / self._done - 1))} left"
