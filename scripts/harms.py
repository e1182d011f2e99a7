"""Fault injection for `scripts.torture`: a run of train.py in its own processes, and the faults.

The run is a tiny configs/vit_digits.py with slow steps; a host is a process with two devices.
"""

import ctypes
import functools
import json
import os
import pathlib
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

ROOT = pathlib.Path(__file__).parent.parent
STEPS, EVERY = 24, 3
FLAGS = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
FAULTY = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e6"}  # Else JAX caches truncated entries.
TIMEOUTS = {"start": 60, "heartbeat": 15, "step": 10, "other": 180}
SLACK = 60  # Seconds, for a busy machine.
STARTING = TIMEOUTS["start"] + TIMEOUTS["other"] + SLACK
OVERRIDES = {
  "steps": STEPS,
  "batch_size": 16,
  "model.dim": 12,
  "model.depth": 1,
  "model.num_heads": 3,
  "optimizer.warmup_steps": 5,
  "eval.evaluators": "{}",
  "log.every": 2,
  "checkpoint.every": EVERY,
  "verify": "never",  # It compiles for longer than these timeouts.
  **{f"timeouts.{name}": seconds for name, seconds in TIMEOUTS.items()},
}
CONFIG = """
import os, runpy, time
from zoo.data import pipeline

get_config = runpy.run_path({config!r})["get_config"]
iterate, (kind, at) = pipeline.Batches.iterate, os.environ.get("FAULT", "none:0").split(":")

def slowly(self, start_step=0, *others):
  for step, batch in enumerate(iterate(self, start_step, *others), start_step + 1):
    time.sleep(0.05)  # Leaves time for faults.
    if step == int(at) and kind == "error":
      raise RuntimeError("planted")
    if step == int(at):
      time.sleep(1e6)
    yield batch

pipeline.Batches.iterate = slowly
"""


def contents(folder: pathlib.Path) -> dict[pathlib.Path, bytes]:
  """Every file under a folder."""
  return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class Unclear(Exception):
  """A process ended in a way that no fault explains."""


class Job:
  """The processes of one start, host by host."""

  def __init__(self, processes: list[subprocess.Popen], said: list[pathlib.Path]):
    self.processes, self._said = processes, said

  @property
  def going(self) -> bool:
    return any(process.poll() is None for process in self.processes)

  def end(self, within: float) -> list[int]:
    """Waits for all processes; returns their exit statuses."""
    deadline = time.monotonic() + within
    while self.going and time.monotonic() < deadline:
      time.sleep(0.1)
    hanging = [i for i, process in enumerate(self.processes) if process.poll() is None]
    for process in self.processes:
      process.kill()
    statuses = [process.wait() for process in self.processes]
    if hanging:
      raise TimeoutError(f"host {hanging} of {len(statuses)} had not ended after {within:.0f} s, statuses {statuses}")
    return statuses

  def said(self, host: int = 0) -> str:
    """The end of a host's stderr."""
    return self._said[host].read_text(errors="replace").strip()[-1500:]

  def refused(self, host: int = 0) -> bool:
    """Whether it exited with status 2 and a one-line error."""
    said = self._said[host].read_text(errors="replace").strip()
    last = said.splitlines()[-1] if said else ""
    return self.processes[host].returncode == 2 and last.startswith("Error: ") and "Traceback" not in said


def _begin(limit: Callable[[], object] | None) -> None:
  """Sets up a new process: restores SIGINT, which a background script ignores, and sets its resource limits."""
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  if limit:
    limit()


class Run:
  """A run folder, its environment, and how often it was started."""

  def __init__(self, folder: pathlib.Path, config: pathlib.Path, hosts: int, sharding: str):
    self.folder, self.hosts, self.starts, self.counts = folder, hosts, 0, {hosts}
    settings = [f"--config.{key}={value}" for key, value in {**OVERRIDES, "sharding": sharding}.items()]
    self.command = [sys.executable, ROOT / "train.py", f"--config={config}", f"--config.workdir={folder}", *settings]

  def start(self, hosts: int | None = None, harmed: tuple[int, ...] = (), fault="none:0", limit=lambda: None) -> Job:
    """Starts the run on `hosts` hosts; the faulty ones get a fault in their data, or limits."""
    hosts, self.starts = hosts or self.hosts, self.starts + 1
    self.counts |= {hosts}
    with socket.socket() as free:
      free.bind(("127.0.0.1", 0))
      address = f"127.0.0.1:{free.getsockname()[1]}"
    variables = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS}
    variables |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(hosts)} if hosts > 1 else {}
    processes, said = [], [self.folder.with_name(f"{self.folder.name}.{self.starts}.{i}") for i in range(hosts)]
    for i in range(hosts):
      with open(said[i], "w") as stderr:
        processes.append(
          subprocess.Popen(
            self.command,
            env={**variables, "JAX_PROCESS_ID": str(i), **(FAULTY | {"FAULT": fault} if i in harmed else {})},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            preexec_fn=functools.partial(_begin, limit if i in harmed else None),
          )
        )
    return Job(processes, said)

  def checkpoints(self) -> list[pathlib.Path]:
    return [path for path in (self.folder / "checkpoints").glob("*") if path.name.isdigit()]

  def start_until_saved(self) -> Job:
    """Starts the run and waits for a checkpoint (the first time, two), or for its end."""
    before, deadline, job = set(self.checkpoints()), time.monotonic() + STARTING, self.start()
    while job.going and time.monotonic() < deadline:
      if len(now := set(self.checkpoints())) > 1 and now - before:
        break
      time.sleep(0.02)
    return job

  def losses(self) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines]


Harm = Callable[[Run, random.Random], list[int]]  # -> statuses of the hosts


def ended(job: Job) -> list[int]:
  """Statuses after a fault: none may be 2, a user's mistake, which a scheduler does not retry."""
  statuses = job.end(STARTING + TIMEOUTS["step"])
  if mistaken := [i for i, status in enumerate(statuses) if status == 2 and "is intact" not in job.said(i)]:
    raise Unclear(f"statuses {statuses}: {job.said(mistaken[0])}")
  return statuses


def signalled(*signals: signal.Signals, early: bool = False, every: bool = False, apart: float = 1) -> Harm:
  """Sends signals, seconds apart, to one host or all: after a checkpoint, or at any time."""

  def harm(run, rng):
    job = run.start() if early else run.start_until_saved()
    time.sleep(rng.uniform(0.5, 15) if early else rng.uniform(0, 1.5))
    processes = job.processes if every else [rng.choice(job.processes)]
    for sent in signals:
      for process in processes:
        process.send_signal(sent)
      time.sleep(apart if len(signals) > 1 else 0)
    return ended(job)

  return harm


def stopped(last: signal.Signals) -> Harm:
  """Suspends a host until the others have ended, then resumes or kills it."""

  def harm(run, rng):
    job = run.start_until_saved()
    time.sleep(rng.uniform(0, 1.5))
    process = rng.choice(job.processes)
    process.send_signal(signal.SIGSTOP)
    others = [other for other in job.processes if other is not process]
    Job(others, []).end(TIMEOUTS["step"] + TIMEOUTS["heartbeat"] + SLACK)
    process.send_signal(last)
    return ended(job)

  return harm


def faulty(kind: str) -> Harm:
  """One host's data pipeline hangs, or raises."""

  def harm(run, rng):
    fault = f"{kind}:{rng.randint(1, STEPS)}"
    return ended(run.start(harmed=(rng.randrange(run.hosts),), fault=fault))

  return harm


def refused(job: Job, harmed: tuple[int, ...]) -> list[int]:
  """Statuses after failed writes: one host reports it, or all finished without writing."""
  statuses = job.end(STARTING)
  if set(statuses) != {0} and not any(job.refused(i) for i in harmed):
    raise Unclear(f"statuses {statuses}: {job.said(harmed[0])}")
  return statuses


def filled(run: Run, rng: random.Random) -> list[int]:
  """Limits the file size of one host, or of all, to a few kilobytes."""
  every, most = tuple(range(run.hosts)), int(2 ** rng.uniform(7, 15))
  harmed = rng.choice([every, (rng.choice(every),)])
  limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
  return refused(run.start(harmed=harmed, limit=limit), harmed)


def locked(run: Run, rng: random.Random) -> list[int]:
  """Makes the folder read-only; on Linux drops the capability by which root writes anyway."""
  harmed, limit = tuple(range(run.hosts)), lambda: os.geteuid() == 0 and ctypes.CDLL(None).prctl(24, 1)
  place = rng.choice([run.folder, run.folder / "checkpoints"])
  place.chmod(0o555)
  try:
    return refused(run.start(harmed=harmed, limit=limit), harmed)
  finally:
    place.chmod(0o755)


def twice(run: Run, rng: random.Random) -> list[int]:
  """Starts a second job on the folder while the first is suspended: the second must be refused, the first continue."""
  first = run.start_until_saved()
  for process in first.processes:
    process.send_signal(signal.SIGSTOP)
  for process in first.processes:  # The signal is sent, but a thread may finish its write first.
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
  met = all(process.poll() is None for process in first.processes)
  before = contents(run.folder)
  second = run.start()
  statuses, after = second.end(STARTING), contents(run.folder)
  changed = sorted(str(path) for path in before.keys() | after.keys() if before.get(path) != after.get(path))
  if met and (changed or not second.refused() or "in use by" not in second.said()):
    for process in first.processes:
      process.kill()
    raise Unclear(f"statuses {statuses} of a second start, changed {changed}: {second.said()}")
  for process in first.processes:
    process.send_signal(signal.SIGCONT)
  return ended(first) + statuses


STARTED: dict[str, Harm] = {
  "kill": signalled(signal.SIGKILL),
  "kill early": signalled(signal.SIGKILL, early=True),
  "term": signalled(signal.SIGTERM),
  "term early": signalled(signal.SIGTERM, early=True),
  "Ctrl-C": signalled(signal.SIGINT),
  "Ctrl-C early": signalled(signal.SIGINT, early=True),
  "Ctrl-C in a terminal": signalled(signal.SIGINT, every=True),
  "Ctrl-C twice": signalled(signal.SIGINT, signal.SIGINT, every=True, apart=0.1),
  "stop and continue": signalled(signal.SIGSTOP, signal.SIGCONT),
  "stop, kill when others gave up": stopped(signal.SIGKILL),
  "stop, continue when others gave up": stopped(signal.SIGCONT),
  "hang": faulty("hang"),
  "error": faulty("error"),
  "full disk": filled,
  "read-only folder": locked,
  "start twice": twice,
}


def rot(run: Run, rng: random.Random) -> str:
  """Corrupts checkpoints, mostly the newest: flips bits, truncates or deletes files."""
  told = []
  for _ in range(rng.choice([1, 1, 2, 4])):
    steps = sorted(run.checkpoints(), key=lambda path: int(path.name))
    step = steps[-1] if rng.random() < 0.7 else rng.choice(steps)
    path = rng.choice([path for path in sorted(step.rglob("*")) if path.is_file() and path.stat().st_size])
    how, content = rng.choice(["bit", "bit", "cut", "lost"]), bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    if how == "lost":
      path.unlink()
    else:
      path.write_bytes(content if how == "bit" else content[: rng.randrange(len(content))])
    told.append(f"{how} {path.relative_to(run.folder / 'checkpoints')}")
  return " ".join(told)
