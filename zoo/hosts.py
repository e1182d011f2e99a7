"""One program on many hosts: joining them, and ending together when a machine is taken away."""

import os
import signal
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def pod(environment: Mapping[str, str] = os.environ) -> bool:
  """Whether the surroundings say that this process is one of several: a TPU pod slice, or JAX's own variables."""
  workers = environment.get("TPU_WORKER_HOSTNAMES", "")
  return "," in workers or "MEGASCALE_COORDINATOR_ADDRESS" in environment or "JAX_COORDINATOR_ADDRESS" in environment


def join(environment: Mapping[str, str] = os.environ) -> None:
  """Calls `jax.distributed.initialize` where there is more than one host. Must run before JAX looks for its devices.

  A TPU pod slice tells JAX everything by itself. Elsewhere the variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES
  and JAX_PROCESS_ID say it.
  """
  if not pod(environment):
    return
  if "JAX_COORDINATOR_ADDRESS" not in environment:
    jax.distributed.initialize()
    return
  if environment.get("JAX_PLATFORMS") == "cpu":
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
  jax.distributed.initialize(
    environment["JAX_COORDINATOR_ADDRESS"],
    num_processes=int(environment["JAX_NUM_PROCESSES"]),
    process_id=int(environment["JAX_PROCESS_ID"]),
  )
  if environment.get("JAX_PLATFORMS") == "cpu":
    _connect()


def _connect() -> None:
  """Makes Gloo's connections while every host is at this same point.

  Gloo gives up if a group of devices that meets for the first time is not complete within 30 seconds. Left to the
  training loop, that is after each host has compiled on its own, for as long as that takes it. Groups that are
  connected wait for half an hour. A mesh of several axes has further groups, which meet when they are first used.
  """
  multihost_utils.sync_global_devices("joined")  # Groups of one device of each host.
  every = jax.make_mesh((jax.device_count(),), ("device",), axis_types=(AxisType.Auto,))
  spread, whole = (NamedSharding(every, PartitionSpec(*axis)) for axis in (["device"], []))
  ones = jax.jit(lambda: jnp.ones(every.size), out_shardings=spread)()
  jax.block_until_ready(jax.jit(jnp.sum, out_shardings=whole)(ones))


class Preemption:
  """Notes the request to stop (SIGTERM), so that the loop can save at the end of its step and leave.

  With several hosts the signal may reach one alone: `reached` then asks JAX's preemption service, which agrees on a
  step.
  """

  def __init__(self):
    self._asked = False
    if jax.process_count() == 1:
      signal.signal(signal.SIGTERM, self._note)

  def _note(self, *_):
    self._asked = True

  def reached(self, step: int) -> bool:
    """Whether to save and leave now, after `step`. Every host is given the same answer."""
    if jax.process_count() == 1:
      return self._asked
    return multihost_utils.reached_preemption_sync_point(step)
