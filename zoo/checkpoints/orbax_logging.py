"""Silences Orbax's tracebacks for errors that the zoo reports in one line."""

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any


def silence_orbax() -> None:
  """Filters log records and unraisable errors that only repeat that a checkpoint was not written.

  If several writes fail, Orbax waits for the first, then closes its event loop: TensorStore's threads print a
  traceback for each of the others, which can no longer reach the event loop. Some are logged by asyncio.
  """
  for name in ("absl", "asyncio"):
    logging.getLogger(name).addFilter(_is_not_a_traceback_of_orbax)
  before = sys.unraisablehook
  if getattr(before, "func", None) is not _without_late_writes:
    sys.unraisablehook = functools.partial(_without_late_writes, before)


def _is_not_a_traceback_of_orbax(record: logging.LogRecord) -> bool:
  return not (record.exc_info and "orbax" in f"{record.pathname} {record.getMessage()}")


def _without_late_writes(show: Callable, unraisable: Any) -> None:
  error = unraisable.exc_value
  if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed" and unraisable.object is None):
    show(unraisable)
