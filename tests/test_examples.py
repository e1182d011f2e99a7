"""The examples in docstrings are run: documentation that cannot rot."""

import doctest
import importlib
from pathlib import Path

import pytest

import zoo
from zoo.config.registry import names

ROOT = Path(zoo.__file__).parent.parent
WITH_EXAMPLES = sorted(file for file in ROOT.glob("zoo/**/*.py") if ">>>" in file.read_text())


def module_name(file):
  return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("name", [module_name(file) for file in WITH_EXAMPLES])
def test_examples_in_docstrings_print_what_they_say(name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  module = importlib.import_module(name)
  finder = doctest.DocTestFinder(exclude_empty=True)
  examples = [test for test in finder.find(module, name) if test.examples]
  assert examples, "the >>> are in no docstring"
  runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE, verbose=False)
  said = []
  for example in examples:
    runner.run(example, out=said.append)
  assert runner.summarize(verbose=False).failed == 0, "".join(said)


@pytest.mark.parametrize("name", zoo.__all__)
def test_every_public_verb_has_an_example(name):
  assert ">>>" in getattr(zoo, name).__doc__


@pytest.mark.parametrize("name", names("objectives"))
def test_every_objective_has_an_example(name):
  assert ">>>" in getattr(importlib.import_module(f"zoo.objectives.{name}"), name).__doc__
