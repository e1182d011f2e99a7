"""Losses that are no numbers, and spikes: the run stops, skips or rolls back, the same whenever it is interrupted."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from tests.faults import PLANTED
from train import main
from zoo.checkpoints import manager
from zoo.checkpoints.fingerprints import fingerprints
from zoo.data import pipeline
from zoo.errors import UserError
from zoo.train import guard
from zoo.train.replay import batch_of

CONFIG = """
def get_config():
  return {
    "seed": 0,
    "steps": 12,
    "batch_size": 8,
    "workdir": "run",
    "model": {
      "family": "vit", "image_size": 14, "patch_size": 7, "dim": 6, "depth": 1, "num_heads": 3, "num_classes": 10
    },
    "objective": {"name": "classify"},
    "data": {"name": "labelled_images", "source": "tfds:digits", "split": "train[:64]", "image_size": 14},
    "optimizer": {"learning_rate": 1e-2, "schedule": "constant", "ema": 0.9},
    "mesh": {"data": -1},
    "sharding": "replicated",
    "verify": "never",
    "eval": {},
    "checkpoint": {"every": 3},
  }
"""


@pytest.fixture
def train(tmp_path, monkeypatch, capfd):
  """Runs train.py with a fault and arguments in a folder -> exit status, what it said."""
  (tmp_path / "config.py").write_text(PLANTED + CONFIG)
  batches = pipeline.Batches.iterate, pipeline.Batches.__getitem__

  def run(folder, fault, *arguments):
    pipeline.Batches.iterate, pipeline.Batches.__getitem__ = batches
    monkeypatch.setenv("FAULT", f"{fault}:0")
    try:
      status = main([f"--config={tmp_path}/config.py", f"--config.workdir={tmp_path / folder}", *arguments])
    except SystemExit as exit:
      status = exit.code
    finally:
      pipeline.Batches.iterate, pipeline.Batches.__getitem__ = batches
    return status, "".join(capfd.readouterr())

  return run


def state_of(folder, step=None):
  """The fingerprint of every array in a checkpoint, by default the newest: equal for equal bits."""
  step = max(manager.steps(folder / "checkpoints")) if step is None else step
  sums = json.loads((folder / "checkpoints" / str(step) / manager.FINGERPRINTS / "metadata").read_text())
  return {name: number for name, number in sums.items() if name != manager.SCORE}


def numbers(**values):
  """What the entries of a checkpoint at these paths, `__` for `/`, are with these whole numbers."""
  return fingerprints({name.replace("__", "/"): np.int32(value) for name, value in values.items()})


def differing(a, b):
  assert a.keys() == b.keys()
  return {name: number for name, number in b.items() if a[name] != number}


def test_a_loss_that_is_no_number_stops_the_run_and_saves_nothing_of_it(tmp_path, train):
  status, said = train("run", "nan:5")
  assert status == 2
  assert "The loss is nan, the gradient's norm nan at step 5. Its batch is in" in said
  assert manager.steps(tmp_path / "run" / "checkpoints") == [3]  # Step 6 would have held no numbers.
  step, batch = batch_of(tmp_path / "run" / "bad" / "step_5.0_of_1.npz")
  assert step == 5 and batch["image"].shape == (8, 14, 14, 3) and np.isnan(batch["image"]).all()

  status, said = train("run", "none:0", f"--replay={tmp_path / 'run' / 'bad' / 'step_5.0_of_1.npz'}")
  assert status == 0 and "Step 5, with its own parameters" in said
  assert "loss nan" in said and "batch: 1 of 2 arrays: image (4,704 of 4,704 numbers)" in said
  assert "parameters: none" in said and "gradients: " in said and "First NaN in the forward pass: nan generated" in said

  # The same command with another action goes on from step 3, and learns from all but the bad batch.
  status, said = train("run", "nan:5", "--config.bad_loss.action=skip")
  assert status == 0 and "at step 5. Skipped." in said
  assert numbers(guard__skipped=1).items() <= state_of(tmp_path / "run").items()


def test_a_step_that_is_skipped_leaves_no_trace_but_its_number(tmp_path, train):
  skip = "--config.bad_loss.action=skip"
  for folder, steps in (("short", 4), ("long", 5)):
    assert train(folder, "nan:5", skip, f"--config.steps={steps}")[0] == 0
  before, after = (state_of(tmp_path / name) for name in ("short", "long"))
  assert differing(before, after) == numbers(step=5, guard__in_a_row=1, guard__skipped=1)
  lines = [json.loads(line) for line in (tmp_path / "long" / "metrics.jsonl").read_text().splitlines()]
  assert lines[-1]["skipped"] == 1 and lines[-1]["loss"] is None

  status, said = train("many", "nan:4,5,6,8", skip, "--config.bad_loss.most_in_a_row=3")
  assert status == 2 and "step 6, the last of 3 consecutive bad steps" in said


@pytest.mark.parametrize("action", ["skip", "roll_back"])
def test_an_interrupted_run_decides_as_an_uninterrupted_one(tmp_path, train, monkeypatch, action):
  monkeypatch.setattr(guard, "WARMUP", 4)
  settings = [
    f"--config.bad_loss.action={action}",
    "--config.bad_loss.spike=1.5",
    "--config.optimizer.learning_rate=0.05",
  ]
  status, said = train("whole", "spike:8", *settings)
  assert status == 0 and "at step 8, its running mean" in said
  for interrupted in (5, 8):
    assert (
      train(f"{interrupted}", "spike:8", *settings, f"--config.steps={interrupted}", "--config.log.every=1")[0] == 0
    )
    assert train(f"{interrupted}", "spike:8", *settings)[0] == 0
    assert state_of(tmp_path / f"{interrupted}") == state_of(tmp_path / "whole")


def test_rolling_back_passes_over_all_that_came_after_the_last_checkpoint(tmp_path, train):
  roll_back = "--config.bad_loss.action=roll_back"
  assert train("run", "nan:8", roll_back, "--config.steps=8")[0] == 0
  at_6, at_8 = (state_of(tmp_path / "run", step) for step in (6, 8))
  assert differing(at_6, at_8) == numbers(step=8, guard__in_a_row=1)
  # Before there is a checkpoint, it is back to the beginning. One that is bad again and again ends the run.
  status, said = train("again", "nan:1,2,3", roll_back, "--config.bad_loss.most_in_a_row=2")
  assert status == 2 and "step 2, the last of 2 consecutive bad steps" in said


def test_a_spike_is_told_by_the_running_mean_of_good_losses():
  state = guard.init()
  for loss in (2.0, 4.0):
    state = guard.updated(state, jnp.float32(loss), jnp.bool_(False), False)
  np.testing.assert_allclose(state["mean"], 0.1 * 2 + 0.9 * 4, rtol=1e-6)
  state |= {"good": jnp.int32(guard.WARMUP)}
  bad = lambda loss, norm=1.0, spike=2.0: bool(guard.is_bad(state, jnp.float32(loss), jnp.float32(norm), spike))
  assert not bad(7.5) and bad(7.7) and not bad(7.7, spike=None)
  assert bad(jnp.nan) and bad(1.0, norm=jnp.inf, spike=None)
  after = guard.updated(state, jnp.float32(jnp.nan), jnp.bool_(True), True)
  assert after["mean"] == state["mean"] and after["good"] == state["good"] and after["skipped"] == 1
  state |= {"good": jnp.int32(guard.WARMUP - 1)}
  assert not bad(100.0)


def test_parameters_that_are_not_finite_are_not_saved():
  good = {"a": jnp.ones(3), "b": jnp.ones((), jnp.bfloat16)}
  guard.check_finite(good, 4, {"count": jnp.arange(3)})
  with pytest.raises(UserError, match="What the model carries is not finite after step 4"):
    guard.check_finite(good, 4, {"mean": jnp.asarray([jnp.nan])})
  with pytest.raises(UserError, match="The parameters are not finite after step 4"):
    guard.check_finite({"a": jnp.ones(3), "b": jnp.asarray([1, jnp.inf])}, 4)


@pytest.mark.parametrize(
  "argument, message",
  [
    ("--config.bad_loss.action=rollback", "Did you mean 'roll_back'"),
    ("--config.bad_loss.spike=1", "bad_loss.spike is 1. It must be a number above 1"),
    ("--config.timeouts.step=0", "config.timeouts.step is 0. It must be at least 1"),
    ("--replay=nowhere/step_3.npz", "It must be a file FOLDER/bad/step_N.0_of_1.npz"),
    ("--replay=nowhere/step_3.0_of_2.npz", "cannot be read"),
  ],
)
def test_a_mistake_is_told_in_one_line(train, argument, message):
  status, said = train("run", "none:0", argument)
  assert status == 2 and message in said and len(said.strip().splitlines()) == 1
