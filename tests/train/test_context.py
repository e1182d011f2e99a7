"""Runs that carry statistics and memories, have frozen teachers, and learn from samples of themselves."""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import zoo
from tests.faults import PLANTED
from tests.train import carried
from tests.train.carried import Run, config_of, everything, text
from zoo.build import by_layer
from zoo.checkpoints.manager import Checkpoints, steps
from zoo.checkpoints.restore import saved_fingerprints
from zoo.config import loading
from zoo.objectives.objective import apply
from zoo.storage import as_path
from zoo.train.context import weights_of_state
from zoo.train.initial import load_into
from zoo.train.replay import keep, replay

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def toys(monkeypatch):
  carried.install(monkeypatch.setattr, functools.partial(monkeypatch.setitem, sys.modules))


@pytest.fixture
def folder(tmp_path):
  carried.write_data(tmp_path)
  return tmp_path


CASES = {"everything": everything, "sampled": text}


@pytest.mark.parametrize("devices, accumulate", [(1, 1), (1, 4), (8, 2)])
@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(folder, case, devices, accumulate):
  config = config_of(folder, **CASES[case](folder))
  config.optimizer.accumulate = accumulate
  run = Run(config, devices)
  whole, metrics = run.further(run.start(), 0, 4)
  assert all(np.isfinite(float(value)) for value in metrics.values())
  state, _ = run.further(run.start(), 0, 2)
  with Checkpoints(folder / "checkpoints") as saver:
    saver.save(2, state, wait=True)
    again, _ = Checkpoints(folder / "checkpoints").restore(run.shapes)
  resumed, _ = run.further(again, 2, 4)
  jax.tree.map(np.testing.assert_array_equal, resumed, whole)
  if case == "everything":
    memory, placed = (tree["rows"]["memory"]["stack"]["layers"]["before"] for tree in (whole, run.made.placed))
    assert memory.shape == (2, 16, 8) and float(jnp.abs(memory).max()) > 0
    assert placed.spec == P(None, *run.made.by_row.spec)
  else:
    assert not {"shared", "rows"} & set(whole)
  assert run.made.model_flops({name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in run.made.batches[0].items()})


def test_devices_and_parts_do_not_change_what_is_carried(folder):
  # Not by Adam: a bias before a norm has gradients of zero, of whose rounding it makes whole steps.
  config = config_of(folder, optimizer={"name": "sgd", "momentum": 0.0, "learning_rate": 0.1})
  one, eight = (Run(config, devices) for devices in (1, 8))
  alone, spread = (jax.device_get(run.further(run.start(), 0, 3)[0]) for run in (one, eight))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), alone, spread)


def test_statistics_are_saved_loaded_and_begun_from_with_the_parameters(folder):
  run = Run(config_of(folder), 1)
  state, _ = run.further(run.start(), 0, 3)
  zoo.save(folder / "saved", run.made.model, weights_of_state(state))
  model, loaded = zoo.load(folder / "saved")
  assert set(loaded) == {"params", "batch_stats"}
  jax.tree.map(np.testing.assert_array_equal, loaded, {"params": state["ema"], **state["ema_shared"]})
  image = np.random.default_rng(1).normal(size=(2, 4, 4, 3)).astype(np.float32)
  want = model.apply({"params": state["ema"], **state["ema_shared"]}, image)["logits"]
  np.testing.assert_array_equal(apply(model, loaded, image)["logits"], want)
  _, states = zoo.capture(model, loaded, image)
  # Statistics are averaged as the parameters that they are of: the mean lags behind.
  assert not np.array_equal(
    *(state[name]["batch_stats"]["stack"]["layers"]["norm"]["mean"] for name in ("shared", "ema_shared"))
  )
  begun = load_into(folder / "saved", run.start(), model)
  for name in ("shared", "ema_shared"):
    jax.tree.map(np.testing.assert_array_equal, begun[name], state["ema_shared"])
  jax.tree.map(np.testing.assert_array_equal, begun["params"], state["ema"])
  looped = zoo.build("carrying", **carried.SIZES, scan=False)
  fresh = looped.init(jax.random.key(0), *looped.example())
  fresh = {"params": fresh["params"], "shared": {"batch_stats": fresh["batch_stats"]}}
  begun = load_into(folder / "saved", fresh, looped)
  jax.tree.map(
    np.testing.assert_array_equal, by_layer({"params": begun["params"], **begun["shared"]}), by_layer(loaded)
  )
  assert set(begun["shared"]["batch_stats"]["stack"]) == {"layer_0", "layer_1"}


def test_a_checkpoint_of_an_unfinished_run_has_its_statistics(folder):
  config = config_of(folder)
  run = Run(config, 1)
  state, _ = run.further(run.start(), 0, 2)
  (folder / "run").mkdir()
  loading.save(config, folder / "run")
  with Checkpoints(folder / "run" / "checkpoints") as saver:
    saver.save(2, state, wait=True)
  _, loaded = zoo.load(folder / "run")
  jax.tree.map(np.testing.assert_array_equal, loaded, weights_of_state(state))


def test_a_batch_is_replayed_with_what_was_carried_into_it(folder):
  config = config_of(folder)
  run = Run(config, 1)
  state, metrics = run.further(run.start(), 0, 3)
  path = keep(folder, 3, run.made.batches[2], 0, 1)
  told = replay(path, run.made, run.mesh, folder / "none", run.start)
  assert f"loss {float(metrics['loss']):.4g}"[:9] in told, (told, metrics)


@pytest.mark.slow
def test_a_run_with_all_of_it_that_is_killed_goes_on_to_the_same_bits(folder, monkeypatch):
  settings = {**carried.settings(folder), **everything(folder), "steps": 8, "log": {"every": 1}}
  settings["optimizer"] |= {"accumulate": 2}
  settings["checkpoint"] = {"every": 3, "keep": 9}
  config = folder / "config.py"
  body = f"from tests.train import carried\ncarried.install()\ndef get_config():\n  return {settings!r}\n"
  config.write_text(PLANTED + body)
  monkeypatch.setenv("PYTHONPATH", str(ROOT))

  def train(workdir, fault="none:0:0"):
    command = [sys.executable, "train.py", f"--config={config}", f"--config.workdir={workdir}"]
    environment = {**os.environ, "FAULT": fault}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

  whole, broken = folder / "whole", folder / "broken"
  ended = train(whole)
  assert ended.returncode == 0, ended.stderr
  assert train(broken, "kill:8:0").returncode == -9
  assert max(steps(broken / "checkpoints")) in (3, 6)
  ended = train(broken)
  assert ended.returncode == 0, ended.stderr
  one, other = (saved_fingerprints(as_path(workdir / "checkpoints" / "8")) for workdir in (whole, broken))
  assert one == other
  assert {"rows/memory/stack/layers/before", "ema_shared/batch_stats/stack/layers/norm/var"} < one.keys()
  assert (whole / "params.safetensors").read_bytes() == (broken / "params.safetensors").read_bytes()
  model, weights_of_state = zoo.load(broken)
  assert set(weights_of_state) == {"params", "batch_stats"}
