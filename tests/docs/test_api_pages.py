"""The API pages are generated from the package."""

import doctest
import importlib
import pkgutil
import sys
from pathlib import Path

import pytest

import zoo


@pytest.fixture(scope="module")
def docs():
  """The modules that Sphinx is configured with; they lie beside conf.py."""
  folder = str(Path(__file__).parents[2] / "docs")
  sys.path.insert(0, folder)
  yield importlib.import_module("api_pages"), importlib.import_module("docstring_markup")
  sys.path.remove(folder)


def test_every_module_has_its_section_and_every_verb_its_entry(docs, tmp_path):
  docs[0].write(tmp_path / "api")
  text = "\n".join(page.read_text() for page in (tmp_path / "api").glob("*.rst"))
  modules = [info.name for info in pkgutil.walk_packages(zoo.__path__, "zoo.")]
  assert not [name for name in modules if not name.endswith("__main__") and f"\n{name}\n" not in f"\n{text}"]
  assert not [name for name in zoo.__all__ if f".. autofunction:: zoo.{name}\n" not in text]
  assert "``head_dim``" not in text.split("Glossary")[0] and "``num_heads``" in text


def test_docstrings_become_markup_that_sphinx_reads(docs):
  assert doctest.testmod(docs[1]).failed == 0
  assert docs[1].escaped("`x`s, *args and name_") == r"``x``\ s, \*args and name\_"
  table = ["What there is:", "  one    the first", "  other  the second"]
  assert docs[1].as_rst(table) == ["What there is:", "", "::", "", "    one    the first", "    other  the second", ""]
