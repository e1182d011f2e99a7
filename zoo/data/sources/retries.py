"""Retries of requests to buckets and servers after transient network errors."""

import contextlib
import os
import time
from collections.abc import Callable, Generator
from typing import TypeVar

from zoo.errors import UserError, one_line, tell

T = TypeVar("T")
PAUSES = (0.5, 2.0, 8.0, 30.0)  # Seconds before each retry.
# Errors for which a retry is useless.
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, UserError, MemoryError)


def tried(read: Callable[[], T], path: str | os.PathLike) -> T:
  """Calls `read`, retrying after PAUSES on transient errors. OSError if all fail."""

  def attempt() -> T:
    with as_os_error():
      return read()

  for pause in PAUSES:
    try:
      return attempt()
    except FINAL:
      raise
    except OSError as error:
      tell(f"{path}: {one_line(str(error), most=200)}. Trying again in {pause:g} s.")
      time.sleep(pause)
  return attempt()


@contextlib.contextmanager
def as_os_error() -> Generator[None]:
  """Converts exceptions of remote filesystems to OSError."""
  try:
    yield
  except (OSError, UserError, MemoryError):
    raise
  except Exception as error:
    kind = PermissionError if getattr(error, "status", None) in (401, 403) else OSError
    raise kind(f"{type(error).__name__}: {error}") from error
