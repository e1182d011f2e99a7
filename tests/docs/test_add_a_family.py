"""docs/add_a_family.md: following the page gives a family that builds, trains, loads and is saved."""

import importlib
import re
import sys
from pathlib import Path

import pytest

import zoo
from zoo.build import count_parameters

PAGE = (Path(__file__).parents[2] / "docs" / "add_a_family.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
FILES = {block.split("\n", 1)[0][2:]: block.split("\n", 1)[1] for block in BLOCKS if block.startswith("# ")}


@pytest.fixture
def followed(tmp_path, monkeypatch):
  """Writes the page's files to the paths that it names, where the zoo finds them."""
  for name, text in FILES.items():
    if name.startswith(("zoo/", "tests/")):
      (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
      (tmp_path / name).write_text(text)
  for package in ("zoo.models", "zoo.convert"):
    module = importlib.import_module(package)
    monkeypatch.setattr(module, "__path__", [*module.__path__, str(tmp_path / package.replace(".", "/"))])
  yield tmp_path
  for package in ("zoo.models", "zoo.convert"):
    sys.modules.pop(f"{package}.opt", None)
    vars(sys.modules[package]).pop("opt", None)


def run(path):
  """The names that a file defines."""
  names = {"__name__": path.stem}
  exec(compile(path.read_text(), str(path), "exec"), names)
  return names


def tiny_sizes():
  """The row that the page adds to TINY."""
  (row,) = [text for name, text in FILES.items() if name.startswith("TINY in ")]
  module = importlib.import_module("tests.models.test_families")
  return eval(f"{{{row}}}", {"TOWER": module.TOWER})["opt"]


def test_the_page_writes_the_files_that_it_names():
  assert [name for name in FILES if " in " not in name] == [
    "zoo/models/opt.py",
    "tests/models/test_opt.py",
    "zoo/convert/opt.py",
    "tests/convert/test_opt.py",
  ]
  named = set(re.findall(r"`((?:zoo|tests|scripts|configs)/[\w/]*(?:\.py|\.json)?)`", PAGE)) - set(FILES)
  assert not [name for name in named if not (Path(__file__).parents[2] / name).exists()]


def test_the_family_has_as_many_parameters_as_published(followed):
  parameters = importlib.import_module("zoo.models.opt").PARAMETERS
  for variant, count in parameters.items():
    assert count_parameters(zoo.build("opt", variant, scan=True)) == count
  assert [row.parameters for row in zoo.list_models("opt")] == list(parameters.values())
  assert zoo.build("opt", "opt-125m").max_length == 2048


def test_the_family_passes_its_own_test_and_that_of_gradients(followed):
  run(followed / "tests/models/test_opt.py")["test_opt_does_not_see_the_future"]()
  families = importlib.import_module("tests.models.test_families")
  families.TINY["opt"] = tiny_sizes()
  try:
    families.test_gradients_reach_every_parameter_and_scanning_changes_nothing("opt")
  finally:
    del families.TINY["opt"]


def test_published_weights_equal_the_reference_and_go_back(followed, tmp_path):
  pytest.importorskip("torch", reason="the references are not installed: pip install 'flax-zoo[parity]'")
  module = run(followed / "tests/convert/test_opt.py")
  for case in module["CASES"]:
    module["test_equals_the_reference"](case, tmp_path / "weights")
