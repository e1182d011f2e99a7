"""train.py as a user runs it: from a config to a finished run, through interruptions and mistakes."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import zoo
from train import main
from zoo import kernels

ROOT = pathlib.Path(__file__).parents[2]

CONFIG = """
def get_config():
  text = {{"name": "language", "source": "text:{folder}/*.txt", "tokenizer": "bytes", "max_length": 17, "cache": False}}
  return {{
    "seed": 3,
    "steps": 6,
    "batch_size": 8,
    "workdir": "{folder}/run",
    "model": {{
      "family": "gpt", "vocab_size": 260, "max_length": 17, "dim": 6, "depth": 2, "num_heads": 3, "dropout": 0.1
    }},
    "objective": {{"name": "causal_lm"}},
    "data": {{**text, "split": "train[:80%]"}},
    "optimizer": {{"learning_rate": 1e-2, "weight_decay": 0.1, "ema": 0.9}},
    "mesh": {{"data": -1}},
    "sharding": "replicated",
    "verify": "never",
    "eval": {{
      "evaluators": {{"test": {{"name": "perplexity", "data": {{**text, "split": "train[80%:]"}}, "batch_size": 2}}}}
    }},
    "log": {{"every": 1}},
    "checkpoint": {{"every": 2}},
  }}
"""


@pytest.fixture
def config(tmp_path):
  rng = np.random.default_rng(0)
  for i in range(5):
    (tmp_path / f"{i}.txt").write_text("".join(rng.choice(list("abc de\n"), 400)))
  path = tmp_path / "config.py"
  path.write_text(CONFIG.format(folder=tmp_path))
  return path


def command(config, *arguments):
  return [sys.executable, str(ROOT / "train.py"), f"--config={config}", *arguments]


def train(config, *arguments, devices=1):
  return subprocess.run(
    command(config, *arguments), capture_output=True, text=True, cwd=config.parent, env=with_devices(devices)
  )


def with_devices(count):
  flags = os.environ["XLA_FLAGS"].replace("device_count=8", f"device_count={count}")
  return {**os.environ, "XLA_FLAGS": flags}


def parameters(folder):
  return jax.tree.map(np.asarray, zoo.load(folder)[1])


def assert_identical(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def losses(folder):
  lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
  return {line["step"]: line["loss"] for line in lines if "loss" in line}


def test_a_config_becomes_a_run_that_can_be_loaded(config):
  done = train(config)
  assert done.returncode == 0, done.stderr
  folder = config.parent / "run"
  assert "step 6/6" in done.stdout
  assert json.loads((folder / "config.json").read_text())["model"]["dim"] == 6
  assert sorted(losses(folder)) == [1, 2, 3, 4, 5, 6]
  model, params = zoo.load(folder)
  assert model.apply({"params": params}, np.ones((1, 5), int)).shape == (1, 5, 260)
  last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
  assert last["step"] == 6 and last["eval/test/bits_per_byte"] > 0


@pytest.mark.slow(minutes=1)
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(config):
  settings = ["--config.steps=40", "--config.log.every=3"]
  assert train(config, f"--config.workdir={config.parent}/whole", *settings).returncode == 0
  folder = config.parent / "broken"
  again = command(config, f"--config.workdir={folder}", *settings)
  codes = []
  for sign in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
    process = subprocess.Popen(
      again, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=config.parent, env=with_devices(1)
    )
    for line in process.stdout:
      if line.startswith("step"):
        break
    time.sleep(0.05)
    process.send_signal(sign)
    process.communicate()
    codes.append(process.returncode)
  assert codes[:2] == [143, -9]
  assert train(config, f"--config.workdir={folder}", *settings).returncode == 0
  assert_identical(parameters(config.parent / "whole"), parameters(folder))
  assert losses(config.parent / "whole") == losses(folder)


def test_eight_devices_learn_what_one_does(config):
  for devices, sharding in ((1, "replicated"), (8, "fsdp")):
    arguments = [f"--config.workdir={config.parent}/{devices}", f"--config.sharding={sharding}"]
    assert train(config, *arguments, "--config.model.dropout=0.0", devices=devices).returncode == 0
  one, eight = losses(config.parent / "1"), losses(config.parent / "8")
  np.testing.assert_allclose(list(one.values()), list(eight.values()), rtol=1e-5)


def test_evaluators_attend_by_the_kernel_that_training_does(config, monkeypatch):
  monkeypatch.chdir(config.parent)
  ring, calls, losses_by_kernel = kernels.KERNELS["ring"], [], {}
  monkeypatch.setitem(kernels.KERNELS, "ring", lambda *args: calls.append(args) or ring(*args))
  for attention in ("dense", "ring"):  # Training drops weights, so that the ring has no part in it.
    settings = [f"--config.attention={attention}", f"--config.workdir={attention}", "--config.steps=2"]
    mesh = ['--config.mesh={"data": 4, "sequence": 2}', "--config.eval.evaluators.test.batch_size=4"]
    assert main([f"--config={config}", *settings, *mesh]) == 0
    assert bool(calls) == (attention == "ring")
    last = json.loads((config.parent / attention / "metrics.jsonl").read_text().splitlines()[-1])
    losses_by_kernel[attention] = last["eval/test/loss"]
  np.testing.assert_allclose(losses_by_kernel["ring"], losses_by_kernel["dense"], rtol=1e-5)


def test_a_sharding_is_explained_without_training(config, capsys):
  assert main([f"--config={config}", "--explain-sharding", "--config.sharding=fsdp"]) == 0
  said = capsys.readouterr().out
  assert said.startswith("mesh {'data': 8}\n") and "embed/embedding" in said and "together" in said
  assert not (config.parent / "run").exists()


def test_a_sharding_is_explained_for_chips_that_are_not_here(config, capsys):
  assert main([f"--config={config}", "--explain-sharding", "--plan=v5p:4x4x4", "--config.sharding=fsdp"]) == 0
  assert capsys.readouterr().out.startswith("mesh {'data': 64}\n")


def test_a_plan_neither_profiles_nor_replays(config, capsys):
  for other in ("--profile=1:2", "--replay=bad/step_1.0_of_1.npz"):
    with pytest.raises(SystemExit):
      main([f"--config={config}", "--plan=v5e:4x4", other])
    assert capsys.readouterr().err == "Error: --plan does not train. Leave out --profile and --replay.\n"


def test_a_run_begins_with_the_parameters_of_another(config):
  assert main([f"--config={config}"]) == 0
  arguments = [f"--config.init={config.parent}/run", f"--config.workdir={config.parent}/next"]
  frozen = ["--config.optimizer.learning_rate=0.0", "--config.optimizer.ema=none"]
  assert main([f"--config={config}", *arguments, *frozen]) == 0
  assert_identical(parameters(config.parent / "run"), parameters(config.parent / "next"))


@pytest.mark.parametrize(
  "argument, message",
  [
    ("--config.optimizer.learning_rat=1", "Did you mean 'learning_rate'"),
    ("--config.model.dpeth=3", "Did you mean 'depth'"),
    ("--config.batch=3", "Did you mean 'batch_size'"),
    ("--config.model.depth=abc", "depth"),
    ("--config.mesh.data=3", "3"),
    ("--config.batch_size=7", "batch_size 7 does not divide over the 8 devices"),
    ("--config.sharding=fdsp", "Did you mean 'fsdp'"),
    ("--config.sharding=[['nope', ['data']]]", "nope"),
    ("--config.optimizer.ema=2", "optimizer.ema is 2.0. It must be at least 0 and below 1"),
    ("--config.seed=9223372036854775808", "It must be at most 9223372036854775807"),
    ("--config.data.source=text:nowhere/*.txt", "nowhere"),
    ("--config.model.max_length=8", "Set --config.model.max_length=16 or more, or --config.data.max_length=9."),
    ("--config.model.vocab_size=200", "model.vocab_size is 200, the data have 260"),
    ("--config.objective.name=causal", "Did you mean 'causal_lm'"),
    ("--config.optimizer.accumulate=3", "accumulate 3 does not divide the batch of 8 rows"),
    ("--config.init={'source': 3}", "init is {'source': 3}. It must be a folder, or have a 'source'"),
    ("--config.init={'source': '.', 'fresh': 4}", "may have lists 'fresh' and 'ignore'"),
    ("--config.init={'source': '.', 'freeze': []}", "may have lists 'fresh' and 'ignore'"),
    ("--config.checkpoint.best=eval/tst/loss", "of no evaluator. Did you mean 'eval/test/loss'? Write eval/KEY/METRIC"),
    ("--profile=3:7", "--profile is '3:7', and the run ends at step 6"),
  ],
)
def test_a_mistake_ends_in_one_line_before_anything_is_written(config, capsys, argument, message):
  with pytest.raises(SystemExit) as exit:
    main([f"--config={config}", argument])
  told = capsys.readouterr().err
  assert exit.value.code == 2
  assert message in told
  assert len(told.strip().splitlines()) == 1
  assert not (config.parent / "run").exists()


def test_a_best_metric_that_no_evaluator_measures_is_told_before_the_first_step(config, capsys):
  with pytest.raises(SystemExit) as exit:
    main([f"--config={config}", "--config.checkpoint.best=eval/test/los"])
  assert exit.value.code == 2
  assert "'eval/test/los', never measured. Did you mean 'eval/test/loss'? There is: eval/" in capsys.readouterr().err
  assert not (config.parent / "run/metrics.jsonl").exists() and not (config.parent / "run/checkpoints").exists()


def test_a_folder_of_a_model_that_no_run_made_is_refused_before_training(config, capsys):
  model = zoo.build("gpt", vocab_size=260, max_length=17, dim=6, depth=1, num_heads=3)
  zoo.save(config.parent / "run", model, jax.jit(model.init)(jax.random.key(0), *model.example())["params"])
  with pytest.raises(SystemExit):
    main([f"--config={config}"])
  assert "run holds a saved model, not a run. Choose another folder" in capsys.readouterr().err
  assert sorted(os.listdir(config.parent / "run")) == ["model.json", "params.safetensors"]


def test_a_run_folder_of_another_model_is_refused(config, capsys):
  assert main([f"--config={config}"]) == 0
  before = {path: path.stat().st_mtime_ns for path in (config.parent / "run").rglob("*") if path.is_file()}
  with pytest.raises(SystemExit):
    main([f"--config={config}", "--config.model.dim=9"])
  assert "model.dim: 6 -> 9" in capsys.readouterr().err
  assert before == {path: os.stat(path).st_mtime_ns for path in before}
  # A model.json that the end of training could not replace is told at its beginning.
  (config.parent / "run" / "model.json").write_text("{")
  with pytest.raises(SystemExit):
    main([f"--config={config}", "--config.steps=9"])
  assert "model.json cannot be read as JSON" in capsys.readouterr().err
  assert max(int(name) for name in os.listdir(config.parent / "run" / "checkpoints")) == 6


def test_bad_records_are_skipped_counted_and_listed_alike_after_an_interruption(config, monkeypatch, capsys):
  monkeypatch.chdir(config.parent)
  rows = [{"text": f"{'ab'[i % 2]} {i}", "label": i % 2} for i in range(20)]
  rows[3]["label"] = rows[11]["label"] = "none"
  (config.parent / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  data = {"name": "labelled_texts", "source": "jsonl:rows.jsonl", "tokenizer": "bytes", "max_length": 5}
  data |= {"class_names": ["a", "b"], "bad_records": {"action": "skip", "most": 0.1}}
  model = {"family": "bert", "vocab_size": 260, "max_length": 5, "dim": 6, "depth": 1, "num_heads": 3}
  sections = {
    "data": data,
    "model": {**model, "head": "classify", "num_classes": 2},
    "objective": {"name": "classify"},
    "eval": {"every": 0, "evaluators": {"test": {"name": "classification", "data": {}}}},
  }
  arguments = [f"--config={config}", *(f"--config.{name}={json.dumps(section)}" for name, section in sections.items())]
  arguments += ["--config.steps=8", "--config.checkpoint.keep=9"]
  whole, broken = config.parent / "run", config.parent / "broken"
  assert main([*arguments, "--check-data"]) == 0
  told = capsys.readouterr().out
  assert told.count("2 of 20 records are bad.") == 2 and "rows.jsonl line 4" in told  # Of training and evaluation.
  rows[0] = {"label": "a"}
  (config.parent / "worse.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  stops = [
    "--config.eval.evaluators.test.data.source=jsonl:worse.jsonl",
    "--config.eval.evaluators.test.data.bad_records=stop",
  ]
  assert main([*arguments, *stops, "--check-data"]) == 2  # Whatever an evaluator reads first.
  told = capsys.readouterr().out
  assert all(f"worse.jsonl line {line}" in told for line in (1, 4, 12))
  assert "worse.jsonl[train]: 3 of 20 records are bad." in told and told.count("rows.jsonl[train]: 2 of 20") == 1
  assert not whole.exists()
  assert main(arguments) == 0
  shutil.copytree(whole, broken)
  for step in (6, 8):
    shutil.rmtree(broken / "checkpoints" / str(step))
  assert main([*arguments, f"--config.workdir={broken}"]) == 0
  assert_identical(parameters(whole), parameters(broken))
  lists = [(folder / "bad_records.jsonl").read_text() for folder in (whole, broken)]
  assert lists[0] == lists[1]
  assert sorted(json.loads(line)["record"] for line in lists[0].splitlines() if '"step": 0' not in line)
  for folder in (whole, broken):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    counts = [line["bad_records"] for line in lines if "bad_records" in line]
    assert counts == sorted(counts) and counts[-1] == 2
    assert lines[-1]["eval/test/bad_records"] == 2
  with pytest.raises(SystemExit, match="2"):
    main([*arguments, "--config.data.bad_records.most=0.05", f"--config.workdir={config.parent}/third"])
  assert "2 of 20 records are bad, more than the fraction 0.05" in capsys.readouterr().err
