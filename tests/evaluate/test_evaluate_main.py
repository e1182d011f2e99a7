import json
import subprocess
import sys

import jax
import pytest

import zoo
from zoo import evaluate
from zoo.checkpoints.manager import Checkpoints
from zoo.config import loading as configs
from zoo.errors import UserError
from zoo.evaluate import artifacts
from zoo.evaluate.__main__ import main

SIZES = {"vocab_size": 260, "max_length": 24, "dim": 8, "depth": 1, "num_heads": 2}


@pytest.fixture
def run(tmp_path):
  """A finished run of a tiny GPT, with two evaluators."""
  (tmp_path / "texts").mkdir()
  for number in range(3):
    (tmp_path / "texts" / f"{number}.txt").write_text("We the people of the union. " * (number + 1))
  data = {"name": "language", "source": f"text:{tmp_path / 'texts'}", "tokenizer": "bytes", "max_length": 24}
  data["cache"] = False
  folder = tmp_path / "run"
  config = {
    "seed": 0,
    "steps": 3,
    "batch_size": 2,
    "workdir": str(folder),
    "model": {"family": "gpt", **SIZES},
    "objective": {"name": "causal_lm"},
    "data": data,
    "optimizer": {"name": "adamw", "learning_rate": 1e-3},
    "mesh": {"data": -1},
    "sharding": "replicated",
    "eval": {
      "every": 0,
      "evaluators": {
        "speeches": {"name": "perplexity", "data": data, "batch_size": 8},
        "samples": {"tokenizer": "bytes", "max_new_tokens": 4},
      },
    },
  }
  configs.save(configs.with_defaults(config), folder)
  model = zoo.build("gpt", **SIZES)
  zoo.save(folder, model, parameters(model, 0))
  return folder


@pytest.mark.parametrize(
  "file", ["../../out", "/out", "a/b", "", ".lock", "x\n", "config", "Model", "page.v2", 3, "samples"]
)
def test_files_of_evaluators_stay_in_the_run_folder_and_are_none_of_its_own(run, file, capsys):
  whole = json.loads((run / "config.json").read_text())
  whole["eval"]["evaluators"]["other"] = {**whole["eval"]["evaluators"]["samples"], "name": "samples", "file": file}
  (run / "config.json").write_text(json.dumps(whole))
  before = {path: path.read_bytes() for path in run.parent.rglob("*") if path.is_file()}
  with pytest.raises(SystemExit):
    main([f"--run={run}"])
  key = "samples" if file == "samples" else "other"  # Sections of a config come in the order of their names.
  assert capsys.readouterr().err.startswith(f"Error: config.eval.evaluators.{key}: file is ")
  assert before == {path: path.read_bytes() for path in run.parent.rglob("*") if path.is_file()}


def test_no_file_is_written_outside_of_its_folder(tmp_path):
  with pytest.raises(UserError, match="'../x.txt' is outside"):
    artifacts.write_text(tmp_path / "run", "../x.txt", "text")


@pytest.mark.parametrize("data", [3, "x", ["text"]])
def test_data_of_an_evaluator_that_are_no_section_are_refused_before_anything_is_computed(run, data, capsys):
  with pytest.raises(SystemExit):
    main([f"--run={run}", "--config.eval.evaluators=" + json.dumps({"e": {"name": "perplexity", "data": data}})])
  assert "Error: config.eval.evaluators.e: data is " in capsys.readouterr().err


def parameters(model, seed):
  return jax.jit(model.init)(jax.random.key(seed), *model.example())["params"]


def test_a_finished_run_is_evaluated_alone(run, capsys):
  assert main([f"--run={run}"]) == 0
  out = capsys.readouterr().out
  results = json.loads((run / "evaluation.json").read_text())
  assert f"{results['eval/speeches/bits_per_byte']:.4f}" in out
  assert out.strip() == (run / "evaluation.txt").read_text().strip()
  assert (run / "samples.txt").exists()  # the file is named after the key


def test_the_numbers_are_those_of_evaluators_called_in_training(run):
  main([f"--run={run}", "--only=speeches"])
  model, params = zoo.load(run)
  section = configs.read_config(run)["eval"]
  found = evaluate.run(evaluate.evaluators(section, model), params)
  results = json.loads((run / "evaluation.json").read_text())
  assert results["eval/speeches/bits_per_byte"] == pytest.approx(found["eval/speeches/bits_per_byte"], rel=1e-6)
  assert "eval/samples/tokens" in found and "eval/samples/tokens" not in results


def test_options_of_an_evaluator_can_be_set_on_the_command_line(run):
  main([f"--run={run}", "--only=samples", "--config.eval.evaluators.samples.prompts=['We the','I']"])
  assert "We the|" in (run / "samples.txt").read_text()


def test_an_unfinished_run_is_evaluated_at_its_newest_or_any_checkpoint(run):
  model = zoo.build("gpt", **SIZES)
  for name in ("model.json", "params.safetensors"):
    (run / name).unlink()
  saver = Checkpoints(run / "checkpoints")
  for step in (1, 2):
    saver.save(step, {"params": parameters(model, step), "step": step})
  saver.close()
  results = {}
  for flags in ([], ["--step=2"], ["--step=1"]):
    main([f"--run={run}", "--only=speeches", *flags])
    results[tuple(flags)] = json.loads((run / "evaluation.json").read_text())
  assert results[()] == results["--step=2",]
  assert (results[()]["step"], results["--step=1",]["step"]) == (2, 1)
  assert results["--step=1",]["eval/speeches/bits_per_byte"] != results[()]["eval/speeches/bits_per_byte"]


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--config={run}"], "Which run? Name its folder, as in --run=runs/clip_emoji."),
    (["--run={run}x"], "There is no file"),
    (["--run={run}", "--only=speches"], "Did you mean 'speeches'? It has: samples, speeches."),
    (["--run={run}", "--only=speeches", "--step=7"], "has no finished checkpoint yet"),
    (["--run={run}", "--step=last"], "--step is 'last'. It must be the number of a step, or best."),
    (["--run={run}", "--config.eval.evaluators={}"], "The config has no evaluators"),
    (["--run={run}", "--config.eval.evaluators.speeches.name=perplexty"], "Did you mean 'perplexity'?"),
    (["--run={run}", "--config.eval.evaluators.speeches.batch_size=0"], "batch_size is 0. It must be at least 1"),
    (["--run={run}", "--config.eval.evaluators.speeches.batchsize=2"], "Did you mean 'batch_size'?"),
    (["--run={run}", "--config.eval.evaluators.speeches.data.source=text:/nowhere"], "/nowhere"),
    (["--run={run}", "--config.mesh={'data': 3}"], "does not fit: there are 8 devices"),
    (["--runs={run}"], "Unknown flag --runs."),
    (["--run={run}/config.json"], "config.json is a file, not a folder. Name the folder it is in."),
    (["--run={run}", "--workdir={run}/config.json"], "is a file, not a folder. Choose another --workdir."),
    (["--run={run}", "--workdir=/proc/nowhere"], "/proc/nowhere cannot be created"),
    (["--run={run}", "--workdir={run}/config.json/b"], "config.json/b would be in it. Choose another --workdir."),
  ],
)
def test_a_mistake_ends_in_one_line_and_status_2(run, capsys, arguments, message):
  (run / "checkpoints").mkdir()
  with pytest.raises(SystemExit) as exit:
    main([argument.replace("{run}", str(run)) for argument in arguments])
  error = capsys.readouterr().err
  assert exit.value.code == 2
  assert error.startswith("Error: ") and error.count("\n") == 1 and message in error
  assert not (run / "evaluation.json").exists()


def test_evaluators_read_the_data_of_the_run_but_for_what_their_section_says():
  run = {
    "name": "packed",
    "max_length": 9,
    "workers": 3,
    "augment": [{"name": "flip"}],
    "data": {"name": "documents", "source": "text:here", "split": "train", "max_length": 9},
  }
  plain = {"name": "packed", "max_length": 9, "data": run["data"]}
  assert evaluate.inherited({}, run) == plain
  assert evaluate.inherited({"max_length": 7, "data": {"split": "test"}}, run) == {
    **plain,
    "max_length": 7,
    "data": {**run["data"], "split": "test"},
  }
  documents = {"name": "documents", "source": "text:there"}
  assert evaluate.inherited({"data": documents}, run) == {**plain, "data": documents}
  assert evaluate.inherited(documents, run) == documents and evaluate.inherited(3, run) == 3


def test_the_source_of_a_run_is_said_once(run, tmp_path, capsys):
  (tmp_path / "other").mkdir()
  (tmp_path / "other" / "0.txt").write_text("Nothing of the kind.")
  section = '{"test": {"name": "perplexity", "data": {"split": "train"}, "train_data": {}}}'
  bytes_of = {}
  for folder in ("texts", "other"):
    source = f"--config.data.source=text:{tmp_path / folder}"
    main([f"--run={run}", source, f"--config.eval.evaluators={section}"])
    bytes_of[folder] = json.loads((run / "evaluation.json").read_text())["eval/test/tokens"]
  assert bytes_of["other"] == len("Nothing of the kind.") + 1 and bytes_of["texts"] > 100
  with pytest.raises(SystemExit):
    main([f"--run={run}", "--config.data.source=text:/nowhere", f"--config.eval.evaluators={section}"])
  error = capsys.readouterr().err
  assert error.startswith("Error: config.eval.evaluators.test: ") and "/nowhere" in error


def test_help_names_the_command():
  shown = subprocess.run([sys.executable, "-m", "zoo.evaluate", "--help"], capture_output=True, text=True, check=True)
  assert shown.stdout.startswith("Usage: python -m zoo.evaluate --config=FILE")


def test_an_evaluator_that_the_model_cannot_serve_is_refused(run):
  model, _ = zoo.load(run)
  with pytest.raises(UserError, match="retrieval needs a model with encode_image and encode_text; gpt has none"):
    evaluate.evaluators({"evaluators": {"retrieval": {"data": {}}}}, model)


def test_a_published_model_is_evaluated_by_the_evaluators_of_another_config(run, tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  hub = tmp_path / "weights" / "tiny"
  zoo.save_hf(hub, *zoo.load(run))
  held = sorted(path.name for path in hub.iterdir())
  with pytest.raises(SystemExit):
    main([f"--run={hub}"])
  error = capsys.readouterr().err
  assert error.count("\n") == 1 and "is a model, not a run" in error and "--task=NAME" in error
  for flags, folder in (([], "runs/evaluations/tiny"), (["--workdir=elsewhere"], "elsewhere")):
    assert main([f"--run={hub}", f"--config={run}/config.json", *flags]) == 0
    assert f"Written to {folder}." in capsys.readouterr().out
    assert {"evaluation.json", "evaluation.txt", "samples.txt"} <= {path.name for path in (tmp_path / folder).iterdir()}
  assert sorted(path.name for path in hub.iterdir()) == held
  zoo.save(tmp_path / "saved", *zoo.load(run))
  assert main([f"--run={tmp_path}/saved", f"--config={run}/config.json", "--only=speeches"]) == 0
  assert (tmp_path / "runs/evaluations/saved/evaluation.json").exists()
  main([f"--run={run}", "--only=speeches"])
  one, other = (json.loads((folder / "evaluation.json").read_text()) for folder in (run, tmp_path / "elsewhere"))
  key = "eval/speeches/bits_per_byte"
  assert other[key] == pytest.approx(one[key], rel=1e-6)


def test_a_tokenizer_of_more_tokens_than_the_model_is_refused(run, capsys):
  with pytest.raises(SystemExit):
    main([f"--run={run}", "--only=samples", "--config.eval.evaluators.samples.tokenizer=gpt2"])
  assert "samples: tokenizer gpt2 has 50257 tokens, the model has 260" in capsys.readouterr().err
