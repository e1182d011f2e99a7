import json
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from zoo.config.loading import check_same_run, differences, load, read_config, save, to_json, without
from zoo.errors import UserError

CONFIG = '''"""A config."""
from ml_collections import ConfigDict


def get_config():
  return ConfigDict({
    "seed": 0, "steps": 100, "batch_size": 8, "workdir": "runs/first",
    "model": {"family": "gpt", "depth": 4, "causal": True, "variant": None},
    "objective": {"name": "causal_lm"},
    "data": {"name": "language", "source": "tfds:sotu", "augment": [{"name": "shift", "pixels": 4}]},
    "optimizer": {"name": "adamw", "learning_rate": 1e-3, "warmup_steps": 10, "betas": (0.9, 0.99)},
    "mesh": {"data": -1, "model": 1}, "sharding": "replicated",
    "eval": {"every": 50, "evaluators": {"text": {"name": "samples"}}},
  })
'''


@pytest.fixture
def file(tmp_path):
  path = tmp_path / "experiment.py"
  path.write_text(CONFIG)
  return path


def loaded(file, *overrides):
  return load([f"--config={file}", *overrides])[0]


def said(file, *argv):
  """The one-line error for these arguments."""
  with pytest.raises(UserError) as caught:
    load([f"--config={file}", *argv])
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_a_file_without_overrides_is_taken_as_it_is(file):
  config = loaded(file)
  assert isinstance(config, ConfigDict)
  assert (config.steps, config.model.depth, config.optimizer.learning_rate) == (100, 4, 1e-3)
  assert config.optimizer.betas == [0.9, 0.99]


@pytest.mark.parametrize(
  ("override", "value"),
  [
    ("steps=500", 500),
    ("steps=1e3", 1000),
    ("model.depth=6", 6),
    ("model.causal=false", False),
    ("model.variant=gpt2", "gpt2"),
    ("model.variant=3", 3),
    ("model.family=none", None),
    ("model.family='none'", "none"),
    ("workdir=7", "7"),
    ("optimizer.learning_rate=3e-4", 3e-4),
    ("optimizer.learning_rate=1", 1.0),
    ("optimizer.learning_rate=none", None),
    ("optimizer.learning_rate=inf", float("inf")),
    ("optimizer.betas=0.8,0.9", [0.8, 0.9]),
    ("optimizer.betas=(0.8, 0.9)", [0.8, 0.9]),
    ("optimizer.betas=[]", []),
    ("data.source=text:a=b,c", "text:a=b,c"),
    ("data.split=train[:90%]", "train[:90%]"),
    ("data.augment.0.pixels=2", 2),
    ("mesh.data=-1", -1),
    ("mesh.expert=2", 2),
    ("sharding=fsdp+tensor", "fsdp+tensor"),
    ("log.every=5", 5),
    ("init=runs/other", "runs/other"),
    ("eval.evaluators.text.temperature=0.5", 0.5),
  ],
)
def test_an_override_has_the_type_of_what_it_replaces(file, override, value):
  path, _, text = override.partition("=")
  for argv in ([f"--config.{override}"], [f"--config.{path}", text]):
    entry = loaded(file, *argv)
    for name in path.split("."):
      entry = entry[int(name)] if isinstance(entry, list) else entry[name]
    assert (entry, type(entry)) == (value, type(value))


def test_a_section_is_replaced_as_a_whole(file):
  config = loaded(file, '--config.eval.evaluators={"probe": {"name": "linear_probe", "shots": [1, 5]}}')
  assert config.eval.evaluators.to_dict() == {"probe": {"name": "linear_probe", "shots": [1, 5]}}


def test_an_entry_that_only_the_function_can_judge_is_taken(file):
  assert loaded(file, "--config.model.dropout=0.1").model.dropout == 0.1
  assert loaded(file, "--config.optimizer.learning_rat=1").optimizer.learning_rat == 1


def test_of_two_overrides_the_last_one_counts(file):
  assert loaded(file, "--config.model.depth=2", "--config.model.depth=3").model.depth == 3


def test_optional_sections_have_defaults_that_no_run_changes(file):
  loaded(file, "--config.eval.evaluators.more={}", "--config.log.every=7")
  config = loaded(file)
  assert (config.log.every, config.checkpoint.keep, config.init, config.attention) == (50, 2, None, "auto")
  assert list(config.eval.evaluators) == ["text"]


@pytest.mark.parametrize(
  ("argument", "message"),
  [
    ("--cofig.steps=5", "Unknown flag --cofig.steps. Did you mean '--config.steps'?"),
    ("--steps=5", "Unknown flag --steps. Did you mean '--config.steps'?"),
    ("--runn=x", "Unknown flag --runn."),
    ("--traceback=no", "--traceback takes no value. Remove '=no'."),
    ("--config=other.py", "--config is given twice, the first time as "),
    ("extra", "Unexpected argument 'extra'"),
    ("-config.steps=3", "Unexpected argument '-config.steps=3'"),
    ("--config.steps", "--config.steps needs a value"),
    ("--config.stps=5", "config has no 'stps'. Did you mean 'steps'? It has: seed, steps"),
    ("--config.optimzer.name=lion", "config has no 'optimzer'. Did you mean 'optimizer'?"),
    ("--config.data.augmnt.name=x", "config.data has no 'augmnt'. Did you mean 'augment'?"),
    ("--config.data.augment.1.pixels=2", "config.data.augment has no '1'. It has: 0."),
    ("--config.data.augment.1=2", "config.data.augment has no '1'. It has: 0."),
    ("--config.eval.evry=5", "config.eval has no 'evry'. Did you mean 'every'?"),
    ("--config.log.evry=5", "config.log has no 'evry'. Did you mean 'every'?"),
    ("--config.checkpoint.keeep=5", "config.checkpoint has no 'keeep'. Did you mean 'keep'?"),
    ("--config.model.=5", "config.model has no ''."),
    ("--config.seed.x=1", "config.seed is 0, not a mapping"),
    ("--config.steps=abc", "config.steps is 'abc'. It must be a number."),
    ("--config.steps=2.5", "config.steps is 2.5. It must be an int."),
    ("--config.steps=none", "config.steps is None. It must be an int."),
    ("--config.steps=true", "config.steps is 'true'. It must be a number."),
    ("--config.steps=-3", "config.steps is -3. It must be at least 1."),
    ("--config.batch_size=0", "config.batch_size is 0. It must be at least 1."),
    ("--config.seed=-1", "config.seed is -1. It must be at least 0."),
    ("--config.log.every=0", "config.log.every is 0. It must be at least 1."),
    ("--config.log.tensorboard=maybe", "config.log.tensorboard is 'maybe'. It must be a bool."),
    ("--config.log=none", "config.log is None. It must be a mapping."),
    ("--config.checkpoint.keep=2.5", "config.checkpoint.keep is 2.5. It must be an int."),
    ("--config.workdir=", "config.workdir is empty."),
    ("--config=", "--config is "),
    ("--config.model=gpt", "config.model is 'gpt'. It must be a mapping. Set an entry of it, as in --config.model."),
    ("--config.model.causal=2", "config.model.causal is '2'. It must be a bool."),
    ("--config.optimizer.betas=[0.9", "config.optimizer.betas is '[0.9'. It must be a list"),
    ("--config.optimizer.learning_rate=fast", "config.optimizer.learning_rate is 'fast'. It must be a number."),
  ],
)
def test_a_mistake_on_the_command_line_is_one_line_with_a_way_out(file, argument, message):
  assert message in said(file, argument)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("def get_config(:\n", r"line 1: SyntaxError: "),
    ("import json\n\nx = 1 / 0\n", r"line 3: ZeroDivisionError: division by zero"),
    ("def get_config():\n  return missing\n", r"line 2: NameError: name 'missing' is not defined"),
    ("import json\ndef get_config():\n  return json.loads('{')\n", r"line 3: JSONDecodeError: "),
    ("def get_config(size):\n  return {}\n", r"experiment.py: TypeError: get_config\(\) missing 1 required"),
    ("config = {}\n", r"experiment.py has no function get_config\(\)"),
    ("def get_config():\n  return 3\n", r"experiment.py gives an int, not a config"),
    ("def get_config():\n  return {'model': {1: 2}}\n", r"config.model has the key 1. Keys are str: write '1'."),
    ("def get_config():\n  return {'model': {'mlp': print}}\n", r"config.model.mlp is a builtin_function_or_method"),
    ("def get_config():\n  return {'steps': 1, 'mode': {}}\n", r"config has no 'mode'. Did you mean 'model'\?"),
    ("def get_config():\n  return {'steps': 1, 'model': {}}\n", r"The config has no 'seed', 'batch_size', 'workdir'"),
  ],
)
def test_a_mistake_in_a_config_file_is_told_with_its_line(file, content, message):
  file.write_text(content)
  assert re.search(message, said(file))


@pytest.mark.parametrize(
  ("before", "after", "message"),
  [
    ('"steps": 100', "'steps': True", "config.steps is True. It must be an int."),
    ('"sharding": "replicated"', "'sharding': 3", "config.sharding is 3. It must be the name of a strategy or"),
    ('"eval": {"every": 50', "'eval': {'every': '50'", "config.eval.every is '50'. It must be an int."),
    ('"eval": {"every"', "'eval': {'evry'", "config.eval has no 'evry'. Did you mean 'every'?"),
    ('"mesh": {"data": -1, "model": 1}', "'mesh': [8]", "config.mesh is [8]. It must be a mapping."),
  ],
)
def test_the_top_level_of_a_file_is_checked_too(file, before, after, message):
  assert before in CONFIG
  file.write_text(CONFIG.replace(before, after))
  assert message in said(file)


def test_a_missing_file_is_one_line_with_the_nearest_name(file):
  assert "There is no file" in said(file.parent / "experimant.py")
  assert "Did you mean 'experiment.py'?" in said(file.parent / "experimant.py")
  assert "There is no file" in said(file.parent / "nowhere" / "experiment.py")


def test_no_config_at_all_is_one_line():
  with pytest.raises(UserError, match="Which config"):
    load([])


def test_a_saved_config_reads_back_as_it_was(file, tmp_path):
  config = loaded(file, "--config.model.depth=6")
  save(config, tmp_path / "run")
  assert loaded(tmp_path / "run" / "config.json").to_dict() == config.to_dict()
  assert loaded(tmp_path / "run", "--config.steps=7").steps == 7
  assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


def test_the_config_of_a_run_stands_in_for_a_missing_one(file, tmp_path):
  save(loaded(file), tmp_path / "run")
  config, options = load([f"--run={tmp_path / 'run'}", "--config.eval.every=9"], flags={"run": "folder of a run"})
  assert config.eval.every == 9
  assert options == {"run": str(tmp_path / "run"), "traceback": False}


def test_a_torn_config_json_is_one_line(tmp_path):
  (tmp_path / "config.json").write_text('{"steps": 1')
  assert "config.json cannot be read as JSON: Expecting" in said(tmp_path)


def test_saved_entries_are_sorted_and_plain(file):
  text = to_json(loaded(file))
  assert list(json.loads(text)) == sorted(json.loads(text))
  assert json.loads(text)["optimizer"]["betas"] == [0.9, 0.99]


def test_differences_name_the_entry_and_both_values():
  old = {"model": {"depth": 4, "variant": None}, "steps": 1}
  new = {"model": {"depth": 6, "dropout": 0.1, "variant": None}, "steps": 1}
  assert differences(old, new) == ["model.depth: 4 -> 6", "model.dropout: absent -> 0.1"]
  assert differences(old, ConfigDict(old)) == []


def test_a_run_goes_on_with_more_steps_on_another_mesh(file, tmp_path):
  save(loaded(file), tmp_path)
  more = ("--config.steps=200", "--config.mesh.data=2", "--config.model.remat=full", "--config.objective.chunk=64")
  assert not check_same_run(loaded(file, *more), tmp_path)
  (line,) = check_same_run(loaded(file, "--config.objective.pairs=ring", "--config.data.source=text:mine"), tmp_path)
  assert line.startswith("Warning: ") and 'data.source: "tfds:sotu" -> "text:mine"' in line


@pytest.mark.parametrize(
  ("override", "message"),
  [
    ("model.depth=6", r"holds another model: model.depth: 4 -> 6. Choose another folder with --config.workdir=FOLDER"),
    ("optimizer.name=lion", r'holds another run: optimizer.name: "adamw" -> "lion"'),
    ("data.classes=['a', 'c']", r'holds another run: data.classes: \["a", "b"\] -> \["a", "c"\]'),
  ],
)
def test_the_folder_of_another_run_is_refused_and_stays_as_it_is(file, tmp_path, override, message):
  save(loaded(file, "--config.data.classes=['a', 'b']"), tmp_path)
  before = (tmp_path / "config.json").read_bytes()
  with pytest.raises(UserError, match=message):
    check_same_run(loaded(file, f"--config.{override}"), tmp_path)
  assert (tmp_path / "config.json").read_bytes() == before


def test_without_leaves_a_plain_dict_and_the_config_as_it_was(file):
  config = loaded(file)
  assert without(config.data, "augment", "absent") == {"name": "language", "source": "tfds:sotu"}
  assert "augment" in config.data


def test_help_lists_the_flags_and_every_entry(file, capsys):
  with pytest.raises(SystemExit) as caught:
    load(["--help", f"--config={file}", "--config.model.depth=5"], flags={"run": "folder of a run"})
  assert caught.value.code == 0
  printed = capsys.readouterr().out
  assert all(part in printed for part in ("--config.model.depth=5", "--run=", "--traceback", "batch_size"))


def test_help_names_what_else_a_config_may_say_of_its_model_objective_and_data(capsys):
  with pytest.raises(SystemExit):
    load(["--help", f"--config={Path(__file__).parents[2]}/configs/gpt2_owt.py"])
  printed = capsys.readouterr().out
  assert "--config.model.KEY may be, for gpt, also: vocab_size, max_length, dim, depth" in printed
  assert "--config.objective.KEY may be, for causal_lm, also: balance, chunk\n" in printed
  assert "--config.data.KEY may be, for language, also: data_dir" in printed


def test_the_entries_that_help_shows_are_overrides_that_change_nothing(file, capsys):
  with pytest.raises(SystemExit):
    load(["--help", f"--config={file}"])
  shown = [
    line.strip()
    for line in capsys.readouterr().out.splitlines()
    if line.startswith("  --config.") and "  " not in line[2:]
  ]
  assert len(shown) > 20
  assert loaded(file, *shown).to_dict() == loaded(file).to_dict()


def test_a_folder_without_config_is_one_line(tmp_path):
  with pytest.raises(UserError, match="There is no file"):
    read_config(tmp_path)
