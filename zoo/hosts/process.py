"""Multi-host processes: joining the cluster, and shutting down together on preemption or failure.

JAX's hosts fail together: each sends the coordinator, host 0, a heartbeat every few seconds. A host without one
for `heartbeat` seconds ends all the others (status 134), and so does the end of the coordinator, at once. A host
that hangs is handled by `zoo.hosts.watchdog`.
"""

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Self

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from zoo.errors import TRY_AGAIN, UserError, tell
from zoo.hosts.heap import keep_freed_memory

PREEMPTED = 143  # 128 + SIGTERM: not zero, so that a scheduler starts the job again.
INTERRUPTED = 130  # 128 + SIGINT, Ctrl-C.
START, HEARTBEAT = 300, 100  # Seconds, JAX's own defaults.


def host_memory() -> int | None:
  """This host's memory in bytes; None where the system does not report it."""
  try:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  except (AttributeError, ValueError, OSError):  # Windows has no sysconf.
    return None


def pod(environment: Mapping[str, str] = os.environ) -> bool:
  """Whether this is one of several processes, from the environment: a TPU pod slice, or JAX's own variables."""
  workers = environment.get("TPU_WORKER_HOSTNAMES", "")
  return "," in workers or "MEGASCALE_COORDINATOR_ADDRESS" in environment or "JAX_COORDINATOR_ADDRESS" in environment


def join(environment: Mapping[str, str] = os.environ, *, start: int = START, heartbeat: int = HEARTBEAT) -> None:
  """Calls `jax.distributed.initialize` where there is more than one host. Must run before JAX looks for its devices.

  A TPU pod slice configures JAX by itself. Elsewhere the variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES
  and JAX_PROCESS_ID are read.

  Args:
    environment: the environment variables.
    start: seconds within which all hosts must have joined.
    heartbeat: seconds without a heartbeat after which a host counts as dead.

  Raises:
    UserError: the variables are not ints.
    SystemExit: the other hosts did not connect, with a status that requests a restart. JAX may exit first (134).
  """
  if not pod(environment):
    return
  timeouts: dict[str, Any] = {"initialization_timeout": start, "heartbeat_timeout_seconds": heartbeat}
  if "JAX_COORDINATOR_ADDRESS" not in environment:
    jax.distributed.initialize(**timeouts)
    return
  if environment.get("JAX_PLATFORMS") == "cpu":
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
  address, names = environment["JAX_COORDINATOR_ADDRESS"], ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
  for name in names:
    if not environment.get(name, "").isdigit():
      raise UserError(f"{name} is {environment.get(name)!r}, but JAX_COORDINATOR_ADDRESS is set. Set it to an int.")
  count, index = (int(environment[name]) for name in names)
  try:
    jax.distributed.initialize(address, num_processes=count, process_id=index, **timeouts)
  except RuntimeError as error:
    first = str(error).partition("\n")[0]
    tell(f"Error: host {index} of {count} could not connect to the others at {address} in {start} s: {first}")
    raise SystemExit(TRY_AGAIN) from error
  if environment.get("JAX_PLATFORMS") == "cpu":
    _connect()


def _connect() -> None:
  """Opens Gloo's connections while all hosts are synchronised.

  Gloo gives up if a group of devices that communicates for the first time is not complete within 30 seconds. In the
  training loop, that would be after each host has compiled, which takes different times. Connected groups
  wait for half an hour. A mesh of several axes has further groups, which connect when they are first used.
  """
  multihost_utils.sync_global_devices("joined")  # Groups with one device of each host.
  all_devices = jax.make_mesh((jax.device_count(),), ("device",), axis_types=(AxisType.Auto,))
  sharded, replicated = (NamedSharding(all_devices, PartitionSpec(*axis)) for axis in (["device"], []))
  ones = jax.jit(lambda: jnp.ones(all_devices.size), out_shardings=sharded)()
  jax.block_until_ready(jax.jit(jnp.sum, out_shardings=replicated)(ones))


def run(main: Callable[[list[str]], int], argv: list[str]) -> NoReturn:
  """Runs `main` and exits the process with its status; an exception is printed, with status 1.

  On CPUs the process keeps freed memory: see `zoo.hosts.heap`.

  A failed process exits immediately. Python's exit would wait for threads of Orbax, which may wait for a folder that
  could not be created; and one of many hosts for the others, in JAX's barrier, while they wait for it in their step.
  """
  keep_freed_memory()
  try:
    status: Any = main(argv)
  except SystemExit as exit:
    status = exit.code
  except BaseException as error:
    if jax.distributed.is_initialized():
      first = str(error).partition("\n")[0]
      tell(f"Error on host {jax.process_index()}: {type(error).__name__}: {first}")
    tell(traceback.format_exc().rstrip())
    status = 1
  if status not in (None, 0, PREEMPTED):
    for stream in (sys.stdout, sys.stderr):
      with contextlib.suppress(OSError):  # On a full disk logging fails too.
        stream.flush()
    os._exit(status if isinstance(status, int) else 1)
  sys.exit(status)


class Preemption:
  """Preemption handler, a context manager: records SIGTERM and Ctrl-C, so that the training loop can save and exit.

  The running step is finished. A second Ctrl-C ends the process at once: by KeyboardInterrupt, or if that
  is not delivered, as during compilation, after `GRACE` seconds.

  With several hosts the signal may reach only one: `reached` then queries JAX's preemption service, which receives
  SIGTERM, and Ctrl-C through it, and agrees on a step.
  """

  GRACE = 2.0

  def __init__(self):
    self._asked, self._interrupts, self._calls = False, 0, 0
    self._alone = jax.process_count() == 1
    self._closed = threading.Event()

  def __enter__(self) -> Self:
    self._before: dict[int, Any] = {}
    if threading.current_thread() is not threading.main_thread():  # Only the main thread handles signals.
      return self
    handlers = {signal.SIGINT: self._interrupt} | ({signal.SIGTERM: self._terminate} if self._alone else {})
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # Stays ignored, as in the background of a script.
      del handlers[signal.SIGINT]
    self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    # Signal handlers run only when the main thread is back in Python; the wake-up file descriptor is written at once.
    reading, self._writing = os.pipe()
    os.set_blocking(self._writing, False)
    self._other = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
    threading.Thread(target=self._listen, args=(reading,), name="ctrl-c", daemon=True).start()
    return self

  def __exit__(self, *_: object) -> None:
    self._closed.set()
    if self._before:
      signal.set_wakeup_fd(self._other)
      os.close(self._writing)
      for number, handler in self._before.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)

  @property
  def status(self) -> int:
    """The exit status of a process that saved after a request to stop."""
    return INTERRUPTED if self._interrupts and self._alone else PREEMPTED

  def reached(self) -> bool:
    """Whether to save and exit now; the same on all hosts, which must call it equally often."""
    if self._alone:
      return self._asked
    self._calls += 1  # Not the training step: a run that rolls back reaches a step twice, and JAX counts upwards.
    return multihost_utils.reached_preemption_sync_point(self._calls)

  def _terminate(self, *_: object) -> None:
    self._asked = True

  def _interrupt(self, *_: object) -> None:
    self._interrupts += 1
    if self._interrupts > 1:
      raise KeyboardInterrupt
    if self._alone:
      self._asked = True
    else:
      signal.raise_signal(signal.SIGTERM)

  def _listen(self, reading: int) -> None:
    interrupts = 0
    with open(reading, "rb", buffering=0) as signals:
      while number := signals.read(1):
        interrupts += number[0] == signal.SIGINT
        if number[0] == signal.SIGINT and interrupts == 1:
          tell("Ctrl-C: finishing and saving this step. Press it again to exit at once.")
        if interrupts > 1 and not self._closed.wait(self.GRACE):
          tell("Interrupted.")
          os._exit(INTERRUPTED)
