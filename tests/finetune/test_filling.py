"""How a config that names a task is completed, and the errors for mistakes."""

import json
import pathlib
import shutil

import jax
import pytest

import train
import zoo
from tests.data.toys import write_jsonl
from tests.evaluate import hub
from zoo.config.loading import load
from zoo.data.sources import open_source
from zoo.finetune.classes import classes_in
from zoo.finetune.filling import with_task

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "finetune.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp("hub") / "tiny"
  return hub.bert_folder(path, "classify", num_classes=2, id2label=["BAD", "GOOD"])


@pytest.fixture
def reviews(tmp_path):
  return hub.table(tmp_path / "r.jsonl", {"text": ["a good film", "bad"] * 20, "label": ["good", "bad"] * 20})


def filled(folder, task, source, *more):
  said = []
  flags = [f"--config={CONFIG}", f"--config.init={folder}", f"--config.task={task}", f"--config.data.source={source}"]
  return with_task(load([*flags, *more])[0], said.append), said


def test_a_head_whose_classes_the_data_have_is_kept(folder, reviews):
  config, said = filled(folder, "classification", reviews)
  assert (config.init, config.model.num_classes, list(config.data.classes)) == (str(folder), 2, ["BAD", "GOOD"])
  assert f"head: that of {folder}, 2 classes: BAD, GOOD." in said
  assert config.data.max_length == 8  # The longest text has 5 tokens.


def test_the_last_layer_of_a_head_with_other_classes_begins_anew(folder, tmp_path):
  source = hub.table(tmp_path / "x.jsonl", {"text": ["a good film", "bad"] * 20, "label": [1, 5] * 20})
  config, said = filled(folder, "classification", source)
  assert list(config.init.fresh) == ["classify/bias", "classify/kernel"]
  assert list(config.data.classes) == ["1", "5"]
  assert f"head: new, 2 classes: 1, 5; that of {folder} has 2 classes: BAD, GOOD." in said


def test_what_the_config_says_goes_before_what_folder_and_data_say(folder, reviews):
  more = ["--config.data.max_length=7", "--config.data.split=train[:50%]", "--config.model.dropout=0.0"]
  config, _ = filled(folder, "classification", reviews, *more, "--config.data.class_names=['bad','good','fine']")
  assert (config.data.max_length, config.data.split, config.model.dropout) == (7, "train[:50%]", 0.0)
  assert list(config.data.classes) == ["bad", "good", "fine"] and config.model.num_classes == 3
  assert not config.eval.evaluators and config.checkpoint.best is None  # The rest is not known to be held out.


def test_rates_of_the_folder_that_training_does_not_use_are_said(folder, reviews, tmp_path):
  copied = shutil.copytree(folder, tmp_path / "copied")
  stated = json.loads((copied / "config.json").read_text())
  assert not any("dropout" in line for line in filled(copied, "classification", reviews)[1])
  rates = {"hidden_dropout_prob": 0.25, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.5}
  (copied / "config.json").write_text(json.dumps(stated | rates))
  _, said = filled(copied, "classification", reviews)
  line = "dropout: 0.25 throughout; config.json has attention_probs_dropout_prob=0, classifier_dropout=0.5."
  assert f"{line} Set --config.model.dropout." in said
  _, said = filled(copied, "classification", reviews, "--config.model.dropout=0.1")
  assert not any("dropout" in line for line in said)


def test_a_split_that_the_data_have_is_held_out(folder, tmp_path):
  for name in ("train", "dev"):
    (tmp_path / name).mkdir()
    write_jsonl(tmp_path / name / "x.jsonl", [{"text": "good", "label": i % 2} for i in range(9)])
  config, _ = filled(folder, "classification", f"jsonl:{tmp_path}")
  assert config.data.split == "train"
  assert config.eval.evaluators.classification.data.to_dict() == {"split": "validation"}


def test_a_filled_config_names_no_task_and_is_plain_data(folder, reviews):
  config, _ = filled(folder, "classification", reviews)
  assert "task" not in config and config.model.family == "bert"
  assert with_task(config) is config
  json.dumps(config.to_dict())


def test_a_run_of_the_zoo_is_a_start_too(folder, reviews, tmp_path):
  model, params = zoo.load(folder)
  zoo.save(tmp_path / "own", model, params)
  config, said = filled(tmp_path / "own", "token_classification", reviews_of_words(tmp_path))
  assert (config.model.head, config.model.num_classes) == ("classify_tokens", 2)
  assert "head: new, 2 classes: A, B." in said


def test_a_run_without_classes_gets_a_head_that_has_them(reviews, tmp_path):
  sizes = dict(vocab_size=300, max_length=24, dim=6, depth=1, num_heads=2, head="pretraining")
  model = zoo.build("bert", **sizes, preprocessing={"tokenizer": "bytes"})
  zoo.save(tmp_path / "own", model, model.init(jax.random.key(0), *model.example())["params"])
  config, said = filled(tmp_path / "own", "classification", reviews)
  assert (config.model.head, config.model.num_classes) == ("classify", 2)
  assert "head: new, 2 classes: bad, good." in said


def reviews_of_words(tmp_path):
  return hub.table(tmp_path / "w.jsonl", {"tokens": [["a", "film"], ["bad"]] * 20, "tags": [["A", "B"], ["A"]] * 20})


@pytest.mark.parametrize(
  ("values", "labels", "several", "names"),
  [
    (["b", "a", "", None], "label", False, ["a", "b"]),
    ([0, 1.0, "2"], "label", False, ["LABEL_0", "LABEL_1", "LABEL_2"]),
    ([10, 9, 2], "label", False, ["2", "9", "10"]),
    ([["O", "X"], "X Y"], "label", True, ["O", "X", "Y"]),
  ],
)
def test_classes_are_sorted_by_name_or_number(values, labels, several, names, tmp_path):
  source = hub.table(tmp_path / "x.jsonl", {labels: values})
  assert classes_in(open_source(source, "train", None), labels, several) == names


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--config.task=clasification"], "config.task is 'clasification'. Did you mean 'classification'?"),
    (["--config.data.class_names=bad,good"], "data.class_names is 'bad,good' (str). It must be a list."),
    (["--config.init=none"], "Say which: --config.init=FOLDER"),
    (["--config.data={}"], "Say which: --config.data.source=csv:my.csv."),
    (["--config.task=causal_lm"], "causal_lm needs a model that continues texts. "),
    (["--config.task=regression"], "label is 'good', not a number."),
    (["--config.task=seq2seq"], "seq2seq needs a model that reads a text and writes another. "),
    (["--config.task=question_answering"], "Say which: --config.data.question_field=FIELD."),
    (["--config.data.label_field=lable"], "has no field 'lable' to be the label. Did you mean 'label'?"),
    (["--config.data.text=x"], "takes no 'text'."),
    (["--config.init=/nowhere"], "/nowhere"),
    (["--config.data.source=csv:/nowhere.csv"], "There is no folder or file /nowhere.csv."),
    (["--config.data.tokenizer=gpt2"], "Leave data.tokenizer out: init has its own."),
    (["--config.model.num_classes=1"], "model.num_classes is 1, the data have 2 classes:"),
  ],
)
def test_a_mistake_ends_in_one_line_and_writes_nothing(flags, message, folder, reviews, tmp_path, capsys):
  whole = [f"--config={CONFIG}", f"--config.init={folder}", "--config.task=classification"]
  whole += [f"--config.data.source={reviews}", f"--config.workdir={tmp_path / 'run'}", *flags]
  with pytest.raises(SystemExit) as exit:
    train.main(whole)
  error = capsys.readouterr().err.splitlines()[-1]
  assert exit.value.code == 2 and error.startswith("Error: ") and message in error, error
  assert not (tmp_path / "run").exists()
