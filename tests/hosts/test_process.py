"""One program on several hosts: two processes with two devices each, connected over the loopback interface."""

import concurrent.futures
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from tests.train.test_train import CONFIG
from zoo.checkpoints.manager import steps
from zoo.hosts import Preemption, join
from zoo.hosts.process import pod

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
  "environment, several",
  [
    ({}, False),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),  # As on a single TPU machine, Colab's too.
    ({"TPU_WORKER_HOSTNAMES": "10.0.0.1,10.0.0.2"}, True),
    ({"MEGASCALE_COORDINATOR_ADDRESS": "10.0.0.1"}, True),
    ({"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234"}, True),
  ],
)
def test_the_surroundings_tell_whether_there_are_several_hosts(environment, several):
  assert pod(environment) is several


@pytest.mark.parametrize("sent, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_request_to_stop_is_noted_and_the_step_goes_on(sent, status):
  handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
  for _ in range(2):  # As of two runs in one process.
    with Preemption() as preemption:
      assert not preemption.reached()
      os.kill(os.getpid(), sent)
      assert preemption.reached() and preemption.reached() and preemption.status == status
    assert handlers == {number: signal.getsignal(number) for number in handlers}


def test_a_second_ctrl_c_is_an_interrupt_and_no_handler_is_left_behind(capsys):
  with pytest.raises(KeyboardInterrupt), Preemption() as preemption:
    os.kill(os.getpid(), signal.SIGINT)
    assert preemption.reached()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_is_told_at_once_and_a_second_one_ends_what_no_interrupt_reaches():
  program = """if True:
    import signal, time
    from zoo.hosts import Preemption
    Preemption.GRACE = 0.1
    with Preemption():
      signal.signal(signal.SIGINT, lambda *_: None)  # As in a call into C, where no handler of Python runs.
      print("here", flush=True)
      time.sleep(60)
  """
  pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  with subprocess.Popen([sys.executable, "-c", program], **pipes) as process:
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    assert "Ctrl-C: finishing and saving this step. Press it again to exit at once." in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=50) == 130 and process.stderr.read() == "Interrupted.\n"


def test_ctrl_c_that_the_surroundings_ignore_is_ignored():
  handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    with Preemption() as preemption:
      os.kill(os.getpid(), signal.SIGINT)
      assert not preemption.reached()
  finally:
    signal.signal(signal.SIGINT, handler)


def test_a_run_in_another_thread_leaves_signals_alone():
  with concurrent.futures.ThreadPoolExecutor() as pool:

    def inside():
      with Preemption() as preemption:
        return preemption.reached()

    assert pool.submit(inside).result() is False


def test_hosts_that_do_not_come_are_no_mistake_so_that_a_scheduler_starts_the_job_again(monkeypatch, capsys):
  def alone(*_, **__):
    raise RuntimeError("DEADLINE_EXCEEDED: Deadline Exceeded\nand more")

  monkeypatch.setattr(jax.distributed, "initialize", alone)
  surroundings = {"JAX_COORDINATOR_ADDRESS": "here:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
  with pytest.raises(SystemExit) as ended:
    join(surroundings, start=7)
  assert ended.value.code == 75
  said = "Error: host 1 of 2 could not connect to the others at here:1 in 7 s: DEADLINE_EXCEEDED: Deadline Exceeded\n"
  assert capsys.readouterr().err == said


@pytest.mark.parametrize(
  "ends, status, says", [("return 2", 2, ""), ("raise SystemExit(75)", 75, ""), ("1 / 0", 1, "ZeroDivisionError")]
)
def test_what_fails_ends_at_once_whatever_its_threads_wait_for(ends, status, says):
  script = f"""
import threading
from zoo import hosts

def main(argv):
  threading.Thread(target=threading.Event().wait).start()
  {ends}

hosts.run(main, [])
"""
  ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
  assert ended.returncode == status and says in ended.stderr


@pytest.mark.parametrize("ends, status", [("raise UserError('no room')", 2), ("1 / 0", 1)])
def test_what_fails_ends_with_its_status_where_nothing_can_be_said(ends, status):
  """The logs may be on the full disk, too."""
  script = f"""
import threading
from zoo import hosts
from zoo.errors import UserError, exits_with_one_line

@exits_with_one_line
def main(argv):
  threading.Thread(target=threading.Event().wait).start()
  {ends}

hosts.run(main, [])
"""
  with open("/dev/full", "w") as full:
    ended = subprocess.run([sys.executable, "-c", script], stdout=full, stderr=full, timeout=300)
  assert ended.returncode == status


@pytest.fixture
def config(tmp_path):
  rng = np.random.default_rng(0)
  for i in range(5):
    (tmp_path / f"{i}.txt").write_text("".join(rng.choice(list("abc de\n"), 400)))
  path = tmp_path / "config.py"
  path.write_text(CONFIG.format(folder=tmp_path))
  return path


def start(config, processes, *arguments, fault="none:0:0"):
  """Starts train.py as so many processes that have four devices between them; for `fault` see tests/faults.py."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  flags = os.environ["XLA_FLAGS"].replace("device_count=8", f"device_count={4 // processes}")
  surroundings = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "FAULT": fault}
  if processes > 1:
    surroundings |= {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": str(processes)}
  command = [sys.executable, str(ROOT / "train.py"), f"--config={config}", "--config.sharding=fsdp", *arguments]
  return [
    subprocess.Popen(
      command,
      env={**surroundings, "JAX_PROCESS_ID": str(i)},
      cwd=config.parent,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(processes)
  ]


def end(started):
  """-> exit status, stdout and stderr of each."""
  try:
    said = [process.communicate(timeout=400) for process in started]
  finally:
    for process in started:
      process.kill()
      process.wait()
  return [(process.returncode, *texts) for process, texts in zip(started, said)]


def losses(folder):
  lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
  return [(line["step"], line["loss"]) for line in lines if "loss" in line]


@pytest.mark.slow(minutes=1)
def test_two_hosts_learn_what_one_does_and_one_goes_on_where_two_stopped(config):
  together, alone = config.parent / "together", config.parent / "alone"
  steady = "--config.optimizer.schedule=constant"
  first, second = end(start(config, 2, f"--config.workdir={together}", "--config.steps=3", steady))
  assert (first[0], second[0]) == (0, 0), first[2] + second[2]
  assert "step 3/3" in first[1] and "step" not in second[1]  # Only the first process prints and writes metrics.
  assert [step for step, _ in losses(together)] == [1, 2, 3]
  for folder in (together, alone):
    ((status, _, complaint),) = end(start(config, 1, f"--config.workdir={folder}", "--config.steps=5", steady))
    assert status == 0, complaint
  assert [step for step, _ in losses(together)] == [1, 2, 3, 4, 5]
  np.testing.assert_allclose(losses(together), losses(alone), rtol=1e-5)


@pytest.mark.slow(minutes=1)
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_that_reaches_one_host_makes_both_save_and_leave(config, sent):
  folder = config.parent / "stopped"
  started = start(config, 2, f"--config.workdir={folder}", "--config.steps=100000", "--config.checkpoint.every=100000")
  for line in started[0].stdout:
    if line.startswith("step"):
      break
  started[1].send_signal(sent)
  ended = end(started)
  assert [status for status, _, _ in ended] == [143, 143], ended
  assert len(steps(folder / "checkpoints")) == 1
  assert steps(folder / "checkpoints")[0] == losses(folder)[-1][0]
