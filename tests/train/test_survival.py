"""Hosts that fail, hang and are killed: the job ends, and the same command goes on to the same bits."""

import hashlib
import shutil

import numpy as np
import pytest

from tests.checkpoints.test_failures import flip
from tests.faults import PLANTED
from tests.hosts.test_process import end, losses, start
from tests.train.test_guard import CONFIG as GUARDED
from tests.train.test_train import CONFIG
from zoo.checkpoints.manager import steps
from zoo.errors import TRY_AGAIN
from zoo.train.replay import batch_of

SETTINGS = [
  "--config.steps=14",
  "--config.eval.evaluators={}",
  "--config.timeouts.heartbeat=15",
  "--config.timeouts.step=15",
]


@pytest.fixture
def config(tmp_path):
  rng = np.random.default_rng(0)
  for i in range(5):
    (tmp_path / f"{i}.txt").write_text("".join(rng.choice(list("abc de\n"), 400)))
  path = tmp_path / "config.py"
  path.write_text(PLANTED + CONFIG.format(folder=tmp_path))
  return path


def run(config, processes, folder, fault="none:0:0"):
  return end(start(config, processes, f"--config.workdir={folder}", *SETTINGS, fault=fault))


def digest(folder):
  return hashlib.sha256((folder / "params.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow(minutes=3)
def test_whatever_happens_to_a_host_the_job_ends_and_goes_on_to_the_same_bits(config):
  whole, broken = config.parent / "whole", config.parent / "broken"
  assert [status for status, _, _ in run(config, 2, whole)] == [0, 0]
  # What is planted, and the statuses of host 0 and 1; None where it is JAX that ends a host, by this or that status. Of
  # two hosts that wait for a step, the one whose time is up first ends by itself, and JAX may end the other one.
  planted = [
    ("exception:3:1", [None, 1], "RuntimeError: planted"),
    ("hang:5:1", [None, None], "hangs: no step was finished for 15 seconds (timeouts.step)"),
    (
      "full:6:1",
      [None, 2],
      "larger than the disk, or ulimit -f, allows. The checkpoint of step 4 is intact.",
    ),
    ("kill:7:1", [None, -9], ""),
    ("kill:9:0", [-9, None], ""),
  ]
  for fault, statuses, says in planted:
    ended = run(config, 2, broken, fault)
    for wanted, (status, _, _) in zip(statuses, ended, strict=True):
      assert status != 0 and wanted in (None, status), (fault, ended)
    assert any(says in errors for _, _, errors in ended)
    if fault.startswith("hang"):
      assert TRY_AGAIN in [status for status, _, _ in ended]
  older, newest = steps(broken / "checkpoints")

  # More hosts resume from there: sums are made in another order. (tests/hosts/test_process.py resumes with fewer.)
  more = shutil.copytree(broken, config.parent / "more")
  assert {status for status, _, _ in run(config, 4, more)} == {0}
  np.testing.assert_allclose(losses(more), losses(whole), rtol=1e-5)

  # As many hosts, but the newest checkpoint has rotted, no sums of its files are there, and one host does not see it:
  # both take the one before.
  flip(broken / "checkpoints" / str(newest))
  ended = run(config, 2, broken, "late:0:1")
  assert [status for status, _, _ in ended] == [0, 0], ended
  said = ended[0][1]
  assert f"Warning: the checkpoint of step {newest} is damaged (" in said and f"Using step {older}." in said
  assert losses(broken) == losses(whole)
  assert digest(broken) == digest(whole)


@pytest.mark.slow(minutes=1)
@pytest.mark.parametrize("action", ["skip", "roll_back"])
def test_two_hosts_that_were_interrupted_decide_on_a_bad_loss_as_if_they_had_not_been(tmp_path, action):
  config, whole, broken = (tmp_path / name for name in ("config.py", "whole", "broken"))
  config.write_text(PLANTED + GUARDED)
  settings = [f"--config.bad_loss.action={action}", "--config.log.every=1", "--config.timeouts.heartbeat=15"]

  def statuses(folder, fault):
    ended = end(start(config, 2, f"--config.workdir={folder}", *settings, fault=fault))
    return [status for status, _, _ in ended]

  assert statuses(whole, "nan:8:1") == [0, 0]
  assert statuses(broken, "nan:8:1+kill:10:0")[0] == -9
  assert statuses(broken, "nan:8:1") == [0, 0]
  assert digest(broken) == digest(whole)
  assert losses(broken) == losses(whole)
  step, batch = batch_of(broken / "bad" / "step_8.0_of_2.npz")
  assert step == 8 and np.isnan(batch["image"]).mean() == 1 / 2  # That of one host.
