"""Runs that carry statistics and memories, have frozen teachers or two players, and learn from their own samples."""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import zoo
from tests.evaluate.toys import Toy
from tests.faults import PLANTED
from tests.train import carried
from tests.train.carried import Run, config_of, everything, players, text
from zoo.build import by_layer
from zoo.checkpoints.manager import Checkpoints, steps
from zoo.checkpoints.restore import saved_fingerprints
from zoo.config import loading
from zoo.evaluate.classification import classification
from zoo.objectives.objective import apply
from zoo.plan import compile as planning
from zoo.storage import as_path
from zoo.train.context import weights_of_state
from zoo.train.initial import load_into
from zoo.train.replay import keep, replay
from zoo.verify import comparison

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def toys(monkeypatch):
  carried.install(monkeypatch.setattr, functools.partial(monkeypatch.setitem, sys.modules))


@pytest.fixture
def folder(tmp_path):
  carried.write_data(tmp_path)
  return tmp_path


CASES = {"everything": everything, "sampled": text, "players": players}
# What a checkpoint of each holds beside parameters and their averages.
HOLDS = {
  "everything": {"rows/memory/stack/layers/before", "ema_shared/batch_stats/stack/layers/norm/var"},
  "players": {"ema/discriminator/kernel", "opt_state/inner_states/group_0/inner_state/0/trace/discriminator/kernel"},
}


@pytest.mark.parametrize("devices, accumulate", [(1, 1), (1, 2), (1, 4), (8, 1), (8, 2)])
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
  shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in run.made.batches[0].items()}
  assert run.made.model_flops(run.made.collected(shapes)) > 0


@pytest.mark.parametrize("case", ["sampled", "players"])
def test_what_is_collected_is_planned_with_and_verified(folder, case):
  config = config_of(folder, **CASES[case](folder))
  planned, _, batch = planning.experiment_on_devices(config, jax.devices())
  assert {"sampled": "tokens" in batch and batch["tokens"].shape == (16, 7), "players": "drawn" in batch}[case]
  assert planned.computed_flops(batch) > 0 and planned.model_flops(batch) > 0
  run = Run(config, 8)
  assert not comparison.compare(config, run.made, run.mesh).wrong


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


def test_an_evaluation_uses_the_statistics_as_they_are_and_begins_without_a_memory(folder):
  run = Run(config_of(folder), 1)
  state, _ = run.further(run.start(), 0, 3)
  weights, rng = weights_of_state(state), np.random.default_rng(1)
  images, labels = rng.normal(size=(11, 4, 4, 3)).astype(np.float32), rng.integers(0, 3, 11).astype(np.int32)
  # Each alone: what is normalised by its batch, or reads what was there before it, gives something else.
  rows = [run.made.model.apply(weights, image[None])["logits"] for image in images]
  want = float(optax.softmax_cross_entropy_with_integer_labels(jnp.concatenate(rows), labels).mean())
  evaluate = classification(run.made.model, data=Toy(image=images, label=labels), batch_size=7)
  for _ in range(2):  # As often as one likes.
    np.testing.assert_allclose(evaluate(weights)["loss"], want, rtol=1e-5)
  backwards = classification(run.made.model, data=Toy(image=images[::-1], label=labels[::-1]), batch_size=7)
  np.testing.assert_allclose(backwards(weights)["loss"], want, rtol=1e-5)
  started = {**weights, **run.start()["shared"]}
  assert abs(evaluate(started)["loss"] - want) > 1e-3 * want


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
@pytest.mark.parametrize("case", CASES)
def test_a_run_that_is_killed_goes_on_to_the_same_bits(folder, monkeypatch, case):
  settings = {**carried.settings(folder), **CASES[case](folder), "steps": 8, "log": {"every": 1}}
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
  assert HOLDS.get(case, set()) < one.keys()
  assert (whole / "params.safetensors").read_bytes() == (broken / "params.safetensors").read_bytes()
  if case == "everything":
    assert set(zoo.load(broken)[1]) == {"params", "batch_stats"}
