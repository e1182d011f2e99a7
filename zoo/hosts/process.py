"""Multi-host processes: joining the cluster, and shutting down together on preemption or failure.

JAX's hosts fail together: each sends the coordinator, host 0, a heartbeat every few seconds. One that
has not for `heartbeat` seconds ends all the others (status 134), and a coordinator that is gone does so at once. A host
that is there and hangs is the business of `zoo.hosts.watchdog`.
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
  """Whether the environment says that this is one of several processes: a TPU pod slice, or JAX's own variables."""
  workers = environment.get("TPU_WORKER_HOSTNAMES", "")
  return "," in workers or "MEGASCALE_COORDINATOR_ADDRESS" in environment or "JAX_COORDINATOR_ADDRESS" in environment


def join(environment: Mapping[str, str] = os.environ, *, start: int = START, heartbeat: int = HEARTBEAT) -> None:
  """Calls `jax.distributed.initialize` where there is more than one host. Must run before JAX looks for its devices.

  A TPU pod slice configures JAX by itself. Elsewhere the variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES
  and JAX_PROCESS_ID say it.

  Args:
    environment: where the variables are.
    start: seconds within which all hosts must have come.
    heartbeat: seconds after which a host that was not heard of counts as dead.

  Raises:
    UserError: the variables are no numbers.
    SystemExit: the other hosts did not connect, with a status that asks for a restart. JAX may be quicker (134).
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

  Gloo gives up if a group of devices that meets for the first time is not complete within 30 seconds. Left to the
  training loop, that is after each host has compiled on its own, for as long as that takes it. Groups that are
  connected wait for half an hour. A mesh of several axes has further groups, which meet when they are first used.
  """
  multihost_utils.sync_global_devices("joined")  # Groups of one device of each host.
  all_devices = jax.make_mesh((jax.device_count(),), ("device",), axis_types=(AxisType.Auto,))
  sharded, replicated = (NamedSharding(all_devices, PartitionSpec(*axis)) for axis in (["device"], []))
  ones = jax.jit(lambda: jnp.ones(all_devices.size), out_shardings=sharded)()
  jax.block_until_ready(jax.jit(jnp.sum, out_shardings=replicated)(ones))


def run(main: Callable[[list[str]], int], argv: list[str]) -> NoReturn:
  """Runs `main` and exits the process with its status; an exception is printed, with status 1.

  What fails ends at once. Left to Python's exit it would wait for threads of Orbax, which may wait for a folder that
  could not be made; and one of many hosts for the others, in JAX's barrier, while they wait for it in their step.
  """
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
      with contextlib.suppress(OSError):  # On a full disk a log is full too.
        stream.flush()
    os._exit(status if isinstance(status, int) else 1)
  sys.exit(status)


class Preemption:
  """Preemption handler, a context manager: records SIGTERM and Ctrl-C, so that the training loop can save and exit.

  The step that is under way is finished. A second Ctrl-C ends the process at once: by KeyboardInterrupt, or if that
  does not get through, as while a program is compiled, by itself after `GRACE` seconds.

  With several hosts the signal may reach one alone: `reached` then asks JAX's preemption service, which hears of
  SIGTERM, and of Ctrl-C by way of that, and agrees on a step.
  """

  GRACE = 2.0

  def __init__(self):
    self._asked, self._interrupts, self._calls = False, 0, 0
    self._alone = jax.process_count() == 1
    self._closed = threading.Event()

  def __enter__(self) -> Self:
    self._before: dict[int, Any] = {}
    if threading.current_thread() is not threading.main_thread():  # Signals are the main thread's alone.
      return self
    handlers = {signal.SIGINT: self._interrupt} | ({signal.SIGTERM: self._terminate} if self._alone else {})
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # As in the background of a script: not for us.
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
    self._calls += 1  # No step: a run that rolls back comes by a step twice, and JAX counts upwards.
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
