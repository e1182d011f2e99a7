"""What hosts tell each other when they read and write one folder, so that none waits where the others never come."""

import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils


def all_hosts(ok: bool) -> bool:
  """Whether all hosts say so."""
  return ok if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(ok)).all())


def from_first_host(numbers: list[int]) -> list[int]:
  """Those of the first host, on all hosts: what lies in a folder may be seen by some sooner than by others."""
  if jax.process_count() == 1:
    return numbers
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(numbers))))
  mine = numbers if jax.process_index() == 0 else np.zeros(size)
  return multihost_utils.broadcast_one_to_all(np.asarray(mine, np.int32)).tolist() if size else []


def barrier() -> Callable[..., None] | None:
  """Where hosts wait for each other while Orbax saves; None, which is Orbax's own, for one host alone.

  Orbax leads a host that could not write to a barrier where the others never come, and would wait there for 20 minutes.
  """
  if jax.process_count() == 1:
    return None
  meet = ocp.multihost.get_barrier_sync_fn()

  def unless_failed(**where: Any) -> None:
    if (error := sys.exception()) is not None:
      raise error
    meet(**where)

  return unless_failed


def jax_error_in(error: BaseException | None) -> jax.errors.JaxRuntimeError | None:
  """The error of JAX that caused another one, if one did: a device or another host has failed."""
  while error is not None and not isinstance(error, jax.errors.JaxRuntimeError):
    error = error.__cause__
  return error
