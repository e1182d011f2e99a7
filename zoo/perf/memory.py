"""Memory checks before allocation: a host that runs out of memory is killed without a message."""

import math
from typing import Any

import jax
import numpy as np

from zoo.errors import UserError
from zoo.hosts.process import host_memory

WAY_OUT = "Shard it over more devices with --config.sharding=fsdp, or use a smaller model; --plan shows what is needed."


def check_state(shapes: Any, shardings: Any, frozen: tuple[Any, Any] = ((), ())) -> None:
  """UserError if train state and frozen models alone exceed the memory of this host's devices.

  Args:
    shapes: of the state, `jax.ShapeDtypeStruct`s.
    shardings: of each of them.
    frozen: shapes and shardings of the frozen models.
  """
  devices = jax.local_devices()
  needed, of_frozen = bytes_on_device(shapes, shardings), bytes_on_device(*frozen)
  needed += of_frozen
  limit = (devices[0].memory_stats() or {}).get("bytes_limit")
  if limit is None and devices[0].platform == "cpu":  # CPU devices share the host's memory.
    needed, limit = needed * len(devices), host_memory()
  if limit is not None and needed > limit:
    what = "Parameters, optimizer state and frozen models" if of_frozen else "Parameters and optimizer state"
    raise UserError(
      f"{what} need {in_gib(needed)} GiB of the memory of a device, which has {in_gib(limit)} GiB. {WAY_OUT}"
    )


def bytes_on_device(shapes: Any, shardings: Any) -> int:
  """Bytes that arrays of these shapes take on a device in these shardings."""
  pairs = zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True)
  return sum(math.prod(sharding.shard_shape(x.shape)) * np.dtype(x.dtype).itemsize for x, sharding in pairs)


def check_batch(row: dict[str, Any], rows: int) -> None:
  """UserError if this host's `rows` of a batch, each like `row` [1, ...], exceed its memory."""
  needed, limit = rows * sum(array.nbytes for array in jax.tree.leaves(row)), host_memory()
  if limit is not None and needed > limit:
    raise UserError(
      f"{rows:,} rows of a batch need {in_gib(needed)} GiB of this host's memory, which has {in_gib(limit)} GiB. Lower "
      "batch_size."
    )


def in_gib(count: int) -> str:
  """Bytes as GiB, to three digits."""
  return f"{count / 2**30:,.0f}" if count >= 100 * 2**30 else f"{count / 2**30:.3g}"
