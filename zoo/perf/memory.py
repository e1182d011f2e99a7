"""Memory checks before allocation: a host that runs out of memory is killed without a message."""

import math
import os
from typing import Any

import jax
import numpy as np

from zoo.errors import UserError

WAY_OUT = "Lay it over more devices with --config.sharding=fsdp, or take a smaller model; --plan says what is needed."


def host_memory() -> int | None:
  """This host's memory in bytes; None where the system does not report it."""
  try:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  except (AttributeError, ValueError, OSError):  # Windows has no sysconf.
    return None


def check_state(shapes: Any, shardings: Any) -> None:
  """UserError if the train state alone exceeds the memory of this host's devices.

  Args:
    shapes: `jax.ShapeDtypeStruct`s.
    shardings: where each of them is to live.
  """
  devices = jax.local_devices()
  pairs = zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True)
  needs = sum(math.prod(sharding.shard_shape(x.shape)) * np.dtype(x.dtype).itemsize for x, sharding in pairs)
  limit = (devices[0].memory_stats() or {}).get("bytes_limit")
  if limit is None and devices[0].platform == "cpu":  # What are called devices share the host's memory.
    needs, limit = needs * len(devices), host_memory()
  if limit is not None and needs > limit:
    raise UserError(
      f"Parameters and optimizer state need {in_gib(needs)} GiB of the memory of a device, which has {in_gib(limit)} "
      f"GiB. {WAY_OUT}"
    )


def check_batch(row: dict[str, Any], rows: int) -> None:
  """UserError if this host's `rows` of a batch, each like `row` [1, ...], exceed its memory."""
  needs, limit = rows * sum(array.nbytes for array in jax.tree.leaves(row)), host_memory()
  if limit is not None and needs > limit:
    raise UserError(
      f"{rows:,} rows of a batch need {in_gib(needs)} GiB of this host's memory, which has {in_gib(limit)} GiB. Lower "
      "batch_size."
    )


def in_gib(count: int) -> str:
  """Bytes as GiB, to three digits."""
  return f"{count / 2**30:,.0f}" if count >= 100 * 2**30 else f"{count / 2**30:.3g}"
