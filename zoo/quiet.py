"""Keeps libraries from printing pages about what the zoo reports in one line, or what is no failure at all."""

import functools
import logging
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

# Answers what libtpu would ask the machine for, in vain.
NO_TPU = {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5e-1", "TPU_WORKER_HOSTNAMES": "localhost"}


def hush_orbax() -> None:
  """Of the loggers and the hook for errors in threads, takes what only repeats that a checkpoint was not written.

  Of several writes that fail Orbax waits for the first, then closes its event loop: TensorStore's threads print a
  traceback for each of the others, which cannot tell the loop any more. Some are logged by asyncio.
  """
  for name in ("absl", "asyncio"):
    logging.getLogger(name).addFilter(_is_not_a_traceback_of_orbax)
  before = sys.unraisablehook
  if getattr(before, "func", None) is not _without_late_writes:
    sys.unraisablehook = functools.partial(_without_late_writes, before)


def hush_libtpu(root: str = "/") -> None:
  """Spares a machine without TPUs, where libtpu is installed to plan, its complaints about metadata that is not there.

  To be called before JAX looks for devices. Where a TPU may be nothing is changed: that is where the PCI bus shows a
  device of Google's, which is how JAX itself tells, or where there is a device file of one.
  """
  top = pathlib.Path(root)
  vendors = top.glob("sys/bus/pci/devices/*/vendor")
  if any(vendor.read_text().strip() == "0x1ae0" for vendor in vendors) or [
    *top.glob("dev/accel*"),
    *top.glob("dev/vfio/*"),
  ]:
    return
  for name, value in NO_TPU.items():
    os.environ.setdefault(name, value)


def _is_not_a_traceback_of_orbax(record: logging.LogRecord) -> bool:
  return not (record.exc_info and "orbax" in f"{record.pathname} {record.getMessage()}")


def _without_late_writes(show: Callable, unraisable: Any) -> None:
  error = unraisable.exc_value
  if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed" and unraisable.object is None):
    show(unraisable)
