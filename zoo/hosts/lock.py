"""Run-folder lock: one job at a time; a job that lost it can no longer save.

Host 0 holds a lock on the file `.lock` of the folder, and writes its identity there. The system releases the lock
however the process ends, so no lock is ever stale. Buckets have no locks, and those of some network drives do
not reach other machines: there the later job takes the folder over, and the earlier one, which checks before it saves,
ends.
"""

import contextlib
import io
import os
import pathlib
import socket
import time
from collections.abc import Callable
from typing import Any, Self

import jax
import numpy as np
from jax.experimental import multihost_utils

from zoo.errors import UserError
from zoo.hosts.consensus import all_hosts
from zoo.storage import as_path, check_folder, is_remote

try:
  import fcntl
except ImportError:  # Windows has no lockf.
  fcntl = None

NAME = ".lock"


class RunLock:
  """Lock on the run folder, a context manager. All hosts must create it together.

  Args:
    folder: of the run; created if missing.
    patience: seconds to wait for another job to end, as hosts do that have lost one of theirs, and for a drive to show
      what another host has written.
    note: called with the owner of the lock while it waits.

  Raises:
    UserError: another job runs there, the folder is not writable, or the hosts do not share it. All hosts
      raise it, and nothing in the folder is changed.
  """

  def __init__(self, folder: str | os.PathLike, *, patience: float, note: Callable[[str], Any]):
    self._folder, self._patience, self._note = as_path(folder), patience, note
    self._file: io.FileIO | None = None
    token = np.frombuffer(os.urandom(8), np.uint8)
    if jax.process_count() > 1:
      token = np.asarray(multihost_utils.broadcast_one_to_all(token))
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    self._who = f"process {os.getpid()} on {socket.gethostname()}, since {since}"
    self._mark = bytes(token).hex()
    for part in (self._take, self._meet):
      problem = None
      try:
        part()
      except UserError as error:
        problem = error
      if not all_hosts(problem is None):
        self.__exit__()
        raise problem or UserError(f"{folder} cannot be locked, as another host reports.")

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    if self._file:
      self._file.close()

  def check(self) -> None:
    """UserError if another job has taken the folder over."""
    holder = self._read() if jax.process_index() == 0 else None
    if holder and self._mark not in holder:
      raise UserError(f"{self._folder} was taken over by {holder.splitlines()[0]}. This job has saved nothing since.")

  def _take(self) -> None:
    """Process 0: acquires the lock, writes the owner into it and removes temporary files of earlier jobs."""
    if jax.process_index() != 0:
      return
    text = f"{self._who}\n{self._mark}\n"
    if is_remote(self._folder):
      (self._folder / NAME).write_text(text)
      return
    folder = pathlib.Path(self._folder)
    check_folder(folder, "Choose another --config.workdir.")
    try:
      folder.mkdir(parents=True, exist_ok=True)
      # Kept open: closing any file on it in this process would release the lock. Children do not inherit it.
      self._file = open(folder / NAME, "ab+", buffering=0)
    except OSError as error:
      raise UserError(f"{folder} cannot be written to: {error.strerror}. Choose another --config.workdir.") from error
    deadline, waited = time.monotonic() + self._patience, False
    while not self._locked():
      what = f"{folder} is in use by {(self._read() or 'another process').splitlines()[0]}"
      if time.monotonic() > deadline:
        raise UserError(f"{what}. End that one first, or choose another --config.workdir.")
      if not waited:
        self._note(f"{what}: waiting up to {self._patience:g} s for it to end.")
      waited = True
      time.sleep(0.5)
    try:
      self._file.truncate(0)
      self._file.write(text.encode())
      os.fsync(self._file.fileno())
    except OSError as error:
      raise UserError(
        f"{folder / NAME} cannot be written: {error.strerror}. Free some space and start again."
      ) from error
    for stale in (*folder.glob(".*.tmp"), *folder.glob("bad/.*.tmp")):
      with contextlib.suppress(OSError):
        stale.unlink()

  def _locked(self) -> bool:
    """Tries to lock the file; True also if the file system or the platform has no locks."""
    try:
      if fcntl is not None and self._file is not None:
        fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
      return False
    except OSError:
      pass  # This drive has no locks.
    return True

  def _meet(self) -> None:
    """Other processes: wait until they see what process 0 has written."""
    deadline = time.monotonic() + self._patience
    while jax.process_index() != 0 and self._mark not in self._read():
      if time.monotonic() > deadline:
        raise UserError(
          f"Host {jax.process_index()} does not see what host 0 writes to {self._folder}. Choose a folder that "
          "all hosts share, or a bucket."
        )
      time.sleep(0.5)

  def _read(self) -> str:
    """The lock file's content; "" if it does not exist."""
    try:
      if self._file:
        self._file.seek(0)
        return self._file.read().decode()
      return (self._folder / NAME).read_text()
    except OSError:
      return ""
