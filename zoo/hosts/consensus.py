"""Consensus between hosts that read and write one folder, so that none waits at a barrier the others never reach."""

import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils


def all_hosts(ok: bool) -> bool:
  """Whether `ok` is true on all hosts (a logical AND over processes)."""
  return ok if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(ok)).all())


def from_first_host(numbers: list[int]) -> list[int]:
  """Broadcasts `numbers` of process 0 to all hosts: a shared folder's listing may differ between hosts for a while."""
  if jax.process_count() == 1:
    return numbers
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(numbers))))
  mine = numbers if jax.process_index() == 0 else np.zeros(size)
  return multihost_utils.broadcast_one_to_all(np.asarray(mine, np.int32)).tolist() if size else []


def barrier() -> Callable[..., None] | None:
  """The barrier at which hosts synchronise while Orbax saves; None (Orbax's default) for a single host.

  Orbax leads a host that could not write to a barrier where the others never come, and would wait there for 20 minutes.
  """
  if jax.process_count() == 1:
    return None
  sync = ocp.multihost.get_barrier_sync_fn()

  def unless_failed(**where: Any) -> None:
    if (error := sys.exception()) is not None:
      raise error
    sync(**where)

  return unless_failed


def jax_error_in(error: BaseException | None) -> jax.errors.JaxRuntimeError | None:
  """The JaxRuntimeError in an error's chain of causes, if any: a device or another host has failed."""
  while error is not None and not isinstance(error, jax.errors.JaxRuntimeError):
    error = error.__cause__
  return error
