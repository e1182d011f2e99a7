import importlib
import sys

import pytest

import zoo
from zoo.build import shapes_of
from zoo.config import families
from zoo.errors import UserError
from zoo.hub import tables

MODEL = """
from zoo.models.bert import bert

def toy(*, dim: int = 6):
  return bert(vocab_size=23, max_length=11, dim=dim, depth=1, num_heads=3)
"""
FACTS = {
  "VARIANTS": "{'base': dict(dim=6)}",
  "PARAMETERS": "{'base': 5}",
  "PAPER": "{'title': 'Toy', 'authors': 'A et al.', 'year': 2026, 'url': 'https://example.org'}",
}
TABLE = {
  "MODEL_TYPES": "('toy',)",
  "HEADS": "{None: ('ToyModel',)}",
  "sizes": "lambda options, head, tensors: {}",
  "config": "lambda sizes: {}",
  "rules": "lambda sizes: []",
}


@pytest.fixture
def toy(tmp_path, monkeypatch):
  """Writes zoo/models/toy.py or zoo/convert/toy.py, found as if it were part of the zoo."""
  for package in ("models", "convert"):
    (tmp_path / package).mkdir()
    home = importlib.import_module(f"zoo.{package}")
    monkeypatch.setattr(home, "__path__", [*home.__path__, str(tmp_path / package)])

  def write(package, facts, code=""):
    forget()
    text = code + "".join(f"{name} = {value}\n" for name, value in facts.items() if value)
    (tmp_path / package / "toy.py").write_text(f'"""A toy."""\n{text}')

  def forget():
    for package in ("models", "convert"):
      sys.modules.pop(f"zoo.{package}.toy", None)
      vars(sys.modules[f"zoo.{package}"]).pop("toy", None)

  monkeypatch.setattr(sys, "dont_write_bytecode", True)  # A file that is written twice in a second is read again.
  yield write
  forget()


def refusal(function, *args):
  with pytest.raises(UserError) as error:
    function(*args)
  assert "\n" not in str(error.value)
  return str(error.value)


def test_a_family_that_says_it_all_is_built_and_listed(toy):
  toy("models", FACTS, MODEL)
  assert zoo.build("toy", "base").spec == {"family": "toy", "variant": "base"}
  assert zoo.list_models("toy") == [("toy", "base", 5, "Toy (A et al., 2026) https://example.org")]


@pytest.mark.parametrize(
  "facts, message",
  [
    ({"VARIANTS": None}, "zoo/models/toy.py defines no VARIANTS. Write VARIANTS = {"),
    ({"VARIANTS": "['base']"}, "zoo/models/toy.py: VARIANTS is ['base'] (list). It must be a mapping."),
    ({"VARIANTS": "{'base': 6}"}, "zoo/models/toy.py: VARIANTS['base'] is 6 (int). It must be a mapping."),
    ({"PARAMETERS": None}, "zoo/models/toy.py defines no PARAMETERS. Write PARAMETERS = {"),
    ({"PARAMETERS": "{}"}, "zoo/models/toy.py: PARAMETERS has no 'base'. Add its published count."),
    ({"PAPER": None}, "zoo/models/toy.py defines no PAPER. Write PAPER = {"),
    ({"PAPER": "{'title': 'Toy', 'year': 2026}"}, "zoo/models/toy.py: a paper lacks authors, url. Write PAPER = {"),
    ({"PAPERS": "{'b': {}}"}, "zoo/models/toy.py: a paper lacks title, authors, year, url."),
  ],
)
def test_what_the_file_of_a_family_lacks_is_named_with_what_to_write(toy, facts, message):
  toy("models", {**FACTS, **facts}, MODEL)
  assert refusal(zoo.list_models, "toy").startswith(message)
  if "VARIANTS" in facts:
    assert refusal(zoo.build, "toy").startswith(message)
    assert refusal(families.variants, "toy").startswith(message)


def test_a_family_without_its_function_or_its_return_is_named(toy):
  toy("models", FACTS, MODEL.replace("toy(", "toys("))
  assert refusal(zoo.build, "toy").startswith("zoo/models has no 'toy' (toy.py defines no function of its name).")
  toy("models", FACTS, MODEL.replace("return ", ""))
  message = "zoo/models/toy.py: toy returned 'NoneType'. It must return a Model of zoo/models/model.py."
  assert refusal(zoo.build, "toy") == message


def test_a_model_without_an_example_is_named(toy):
  code = "from zoo.models.model import Model\ndef toy(*, dim: int = 6):\n  return Model()\n"
  toy("models", FACTS, code)
  message = "toy: Model has no example(batch_size). Return a tuple of inputs from it."
  assert refusal(shapes_of, zoo.build("toy")) == message


@pytest.mark.parametrize(
  "facts, message",
  [
    *(({name: None}, f"zoo/convert/toy.py defines no {name}. Write ") for name in TABLE),
    ({"MODEL_TYPES": "('toy')"}, "zoo/convert/toy.py: MODEL_TYPES is 'toy' (str). It must be a list."),
    ({"MODEL_TYPES": "()"}, "zoo/convert/toy.py: MODEL_TYPES, or HEADS, or one of its heads is empty."),
    ({"HEADS": "{None: ('ToyModel')}"}, "zoo/convert/toy.py: HEADS[None] is 'ToyModel' (str). It must be a list."),
    ({"HEADS": "{}"}, "zoo/convert/toy.py: MODEL_TYPES, or HEADS, or one of its heads is empty."),
  ],
)
def test_what_a_table_of_the_hub_lacks_is_named_with_what_to_write(toy, facts, message):
  toy("convert", {**TABLE, **facts})
  assert refusal(tables.of_family, "toy").startswith(message)
  assert refusal(tables.of_model_type, "bert", "x").startswith(message)


def test_a_whole_table_is_found_by_its_model_type(toy):
  toy("convert", TABLE)
  assert tables.family_of(tables.of_model_type("toy", "x")) == "toy"
