import json
import pathlib

import pytest

import zoo
from tests.data.toys import write_jsonl
from tests.evaluate import hub
from tests.hub_folder import edit_config
from zoo.errors import UserError
from zoo.evaluate.__main__ import main
from zoo.evaluate.tasks import find_task, task_names


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
  return hub.bert_folder(tmp_path_factory.mktemp("hub") / "tiny", "classify", num_classes=2, id2label=["BAD", "GOOD"])


@pytest.fixture
def reviews(tmp_path):
  return hub.table(tmp_path / "r.jsonl", {"review": ["a good film", "bad", "very good"], "stars": ["good", "bad", 1]})


def test_a_model_is_measured_in_one_line_and_its_folder_is_left_as_it_is(
  classifier, reviews, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  held = {path: path.read_bytes() for path in classifier.iterdir()}
  flags = [f"--model={classifier}", "--task=classification", f"--data={reviews}", "--batch_size=3"]
  assert main(flags) == 0
  out = capsys.readouterr().out
  results = json.loads((tmp_path / "runs/evaluations/tiny/classification/evaluation.json").read_text())
  assert results["columns"] == {"text": "review", "label": "stars"}
  assert "columns  text = review, label = stars" in out and "classes  0 = BAD, 1 = GOOD" in out
  assert f"{results['accuracy']:.4f}" in out
  assert out.startswith((tmp_path / "runs/evaluations/tiny/classification/evaluation.txt").read_text().strip())
  assert results["accuracy"] == zoo.evaluate_model(str(classifier), task="classification", data=reviews)["accuracy"]
  assert held == {path: path.read_bytes() for path in classifier.iterdir()}


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--task=clasification"], "There is no task 'clasification'. Did you mean 'classification'?"),
    (
      ["--task=perplexity"],
      "perplexity needs a model that continues texts. This is a bert that classifies texts into 2 classes. It fits: cl",
    ),
    (["--data=jsonl:/nowhere"], "/nowhere"),
    (["--columns=text=reviw"], "has no field 'reviw' to be the text. Did you mean 'review'? It has: review, stars."),
    (["--columns=txt=review"], "classification has no column 'txt'. Did you mean 'text'? It has: text, pair, label."),
    (["--columns=review"], "columns is 'review'. It must be COLUMN=FIELD,..."),
    (["--columns=label=review"], "label 'a good film' is not one of the model's classes. It has: BAD, GOOD. Say which"),
    (["--batchsize=3"], "Unknown flag --batchsize. Did you mean '--batch_size'?"),
    (["--batch_size=0"], "batch_size is 0. It must be at least 1."),
    (["--order=5"], "Unknown flag --order."),
    (
      ["--target_length=3"],
      "classification takes no 'target_length'. Did you mean 'max_length'? It takes: bad_records",
    ),
    (["--max_length=99"], "max_length is 99. The tokenizer"),
    (["--split=test"], "has no split 'test'. It has: train"),
    (["--classes=['a']"], "classes has 1 names, 'a', the model 2 classes. Name its 2, in the order of its logits"),
    (["--labels={'good': 'fine'}"], "labels names the class 'fine', not one of the model's: BAD, GOOD."),
    (["--train_split=train"], "classification trains nothing."),
    (["--workdir={data}/x"], "Choose another --workdir."),
    (["--model="], "--model is missing: a folder, or"),
  ],
)
def test_a_mistake_ends_in_one_line_and_writes_nothing(flags, message, classifier, reviews, tmp_path, capsys):
  named = {flag.partition("=")[0] for flag in flags}
  whole = [f"--model={classifier}", "--task=classification", f"--data={reviews}", f"--workdir={tmp_path / 'out'}"]
  whole = [flag for flag in whole if flag.partition("=")[0] not in named]
  with pytest.raises(SystemExit) as exit:
    main([*whole, *(flag.replace("{data}", reviews.removeprefix("jsonl:")) for flag in flags)])
  error = capsys.readouterr().err
  assert exit.value.code == 2
  assert error.startswith("Error: ") and error.count("\n") == 1 and message in error, error
  assert not (tmp_path / "out" / "evaluation.json").exists()


@pytest.mark.parametrize("flag", ["model", "data"])
def test_what_is_missing_is_named(flag, capsys):
  flags = {"model": "--model=x", "data": "--data=jsonl:x"}
  with pytest.raises(SystemExit):
    main(["--task=classification", *(text for name, text in flags.items() if name != flag)])
  assert capsys.readouterr().err.startswith(f"Error: --{flag} is missing: ")


def test_help_lists_tasks_and_of_one_its_columns_and_options(capsys):
  assert main(["--task=classification", "--help"]) == 0
  out = capsys.readouterr().out
  assert all(f"\n  {name} " in out for name in task_names()) and "\nColumns of classification:\n  text" in out
  assert "batch_size" in out.splitlines()[-1]


def test_the_split_is_the_first_of_test_validation_and_train(classifier, tmp_path):
  for name, text in (("train", "good"), ("dev", "bad"), ("test", "film")):
    (tmp_path / name).mkdir()
    write_jsonl(tmp_path / name / "x.jsonl", [{"text": text, "label": 0}])
    notes = []
    options = {"task": "classification", "data": f"jsonl:{tmp_path}", "note": notes.append}
    zoo.evaluate_model(classifier, **options)
    assert f"[{name if name != 'dev' else 'validation'}], 1 records" in notes[0]


def test_a_model_and_its_parameters_can_be_handed_over_with_names_for_its_classes(classifier, reviews):
  model, params = zoo.load(classifier)
  options = {"task": "classification", "data": reviews, "columns": {"text": "review"}}
  metrics = zoo.evaluate_model((model, params), **options, classes=["Bad", "Good"])
  assert metrics == zoo.evaluate_model(classifier, **options)
  with pytest.raises(UserError, match="label 'good' is not one of the model's classes. It has: LABEL_0, LABEL_1"):
    zoo.evaluate_model((model, params), **options)
  with pytest.raises(UserError, match="It must be a folder, .* or .model, params."):
    zoo.evaluate_model(model, **options)


def test_a_model_of_several_classes_a_text_is_refused(reviews, tmp_path):
  folder = hub.bert_folder(tmp_path / "m", "classify", num_classes=2)
  edit_config(folder, problem_type="multi_label_classification")
  with pytest.raises(UserError, match="problem_type is multi_label_classification"):
    zoo.evaluate_model(folder, task="classification", data=reviews)


def test_the_documentation_has_a_row_for_each_task():
  page = (pathlib.Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
  rows = page.split("<!-- tasks -->")[1].split("<!-- end of tasks -->")[0].strip().splitlines()[2:]
  assert rows == [row(name, find_task(name)) for name in task_names()], "\n" + "\n".join(
    row(name, find_task(name)) for name in task_names()
  )


def row(name, task):
  columns = [f"{role}: {column.holds}" for role, column in task.columns.items()]
  columns = [text if column.needed else f"({text})" for text, column in zip(columns, task.columns.values())]
  return f"| `{name}` | {task.does} | {'; '.join(columns)} | {task.needs} | {task.metrics} |"
