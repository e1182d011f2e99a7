"""Processes that hang, and others that are only slow."""

import signal
import subprocess
import sys
import time

import pytest

from zoo.errors import TRY_AGAIN

SCRIPT = """
import ctypes, sys, time
from zoo.hosts.watchdog import Watchdog

with Watchdog(step=1, other=60, host="host 3 of 4") as watchdog:
  for _ in range(3):
    watchdog.step_done()
  print("going", flush=True)
  {}
"""


def run(body):
  return subprocess.Popen(
    [sys.executable, "-c", SCRIPT.format(body)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )


@pytest.mark.parametrize(
  "body, status, says",
  [
    (
      "time.sleep(1e6)",
      TRY_AGAIN,
      "host 3 of 4 hangs: no step was finished for 1 seconds (timeouts.step), 3 steps after it",
    ),
    ("time.sleep(0.7); ctypes.PyDLL(None).sleep(10**6)", 1, "Timeout"),  # It holds the GIL.
  ],
)
def test_a_process_that_hangs_shows_where_and_ends(body, status, says):
  process = run(body)
  _, said = process.communicate(timeout=120)
  assert process.returncode == status
  assert says in said and 'File "<string>", line 9' in said


@pytest.mark.parametrize(
  "body",
  [
    "with watchdog.other(): time.sleep(2.5)",
    "with watchdog.compiling('a') as first: time.sleep(2.5 * first)\n"
    "  with watchdog.compiling('a') as again: assert not again",
  ],
)
def test_what_is_no_step_may_take_longer(body):
  process = run(body)
  assert process.communicate(timeout=120)[1] == "" and process.returncode == 0


def test_time_in_which_the_process_was_stopped_does_not_count():
  process = run("with watchdog.other(): pass\n  time.sleep(0.4)")
  assert process.stdout.readline() == "going\n"
  process.send_signal(signal.SIGSTOP)
  time.sleep(1.5)
  process.send_signal(signal.SIGCONT)
  process.communicate(timeout=120)
  assert process.returncode == 0


def test_a_process_that_hangs_ends_where_nothing_can_be_said():
  with open("/dev/full", "w") as full:
    script = SCRIPT.format("time.sleep(1e6)").replace('print("going", flush=True)', "")
    assert subprocess.run([sys.executable, "-c", script], stdout=full, stderr=full, timeout=120).returncode == TRY_AGAIN
