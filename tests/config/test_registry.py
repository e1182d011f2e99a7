import importlib
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from zoo.config import registry
from zoo.errors import UserError


@pytest.fixture(autouse=True)
def fruits(tmp_path, monkeypatch):
  """A package zoo.fruits: apple.py has a function of its name, basket.py has not, and melon is a package."""
  package = tmp_path / "fruits"
  (package / "melon").mkdir(parents=True)
  (package / "melon" / "__init__.py").write_text("def melon():\n  pass\n")
  (package / "__init__.py").write_text("")
  (package / "apple.py").write_text(
    "def apple(model, *, size: int, colour: str = 'red', batch_size=None):\n  return model, size, colour, batch_size\n"
  )
  (package / "basket.py").write_text("def carry():\n  pass\n")
  monkeypatch.setattr("zoo.__path__", [*sys.modules["zoo"].__path__, str(tmp_path)])
  yield package
  for module in [module for module in sys.modules if module.startswith("zoo.fruits")]:
    del sys.modules[module]


# For each package: the type that its registered functions return.
ENTRIES = {
  "data": "data.pipeline.Records",
  "data.sources": "data.sources.Source",
  "evaluate": "collections.abc.Callable",
  "models": "models.model.Model",
  "objectives": "objectives.objective.Objective",
}


def refusal(function, *args, **kwargs):
  with pytest.raises(UserError) as caught:
    function(*args, **kwargs)
  return str(caught.value)


def test_a_file_that_holds_a_function_of_its_name_is_found():
  assert registry.names("fruits") == ["apple"]
  assert registry.lookup("fruits", "apple")("m", size=3) == ("m", 3, "red", None)


def test_only_the_file_that_is_named_is_imported(fruits):
  (fruits / "zucchini.py").write_text("raise RuntimeError('imported')\n")
  assert registry.lookup("fruits", "apple")


@pytest.mark.parametrize("name", ["aple", "basket", "melon", "apple.apple", "../apple", "", None, 3])
def test_another_name_is_refused_with_those_there_are(name):
  assert "It has: apple." in refusal(registry.lookup, "fruits", name)


def test_a_misspelt_name_gets_a_suggestion():
  assert "zoo/fruits has no 'aple'. Did you mean 'apple'?" in refusal(registry.lookup, "fruits", "aple")


def test_a_section_calls_its_function_with_what_the_caller_supplies():
  section = {"name": "apple", "size": 3}
  assert registry.build("fruits", section, "model", batch_size=5) == ("model", 3, "red", 5)
  assert section == {"name": "apple", "size": 3}


@pytest.mark.parametrize(
  ("section", "message"),
  [
    ({"size": 3}, "A section for zoo/fruits needs a 'name'. It may be: apple."),
    ({"name": "apple"}, "apple needs 'size'. Add it to the config."),
    (
      {"name": "apple", "size": 3, "color": "red"},
      "apple takes no 'color'. Did you mean 'colour'? It takes: size, colour.",
    ),
    ({"name": "apple", "size": 3, "model": 1}, "apple takes no 'model'."),
    ({"name": "apple", "size": 3, "batch_size": 1}, "apple takes no 'batch_size'."),
    ({"name": "apple", "size": 2.5}, "apple.size is 2.5 (float). It must be an int."),
    ({"name": "apple", "size": True}, "apple.size is True (bool). It must be an int."),
    ({"name": ["apple"], "size": 3}, "zoo/fruits has no \"['apple']\". Did you mean 'apple'?"),
    ({"name": "apple", "size": 3, "colour": None}, "apple.colour is None (NoneType). It must be a str."),
  ],
)
def test_a_section_is_checked_against_the_signature(section, message):
  assert message in refusal(registry.build, "fruits", section, "model", batch_size=5)


@pytest.mark.parametrize(
  ("annotation", "value"),
  [
    (int, 3),
    (float, 3),
    (float | None, None),
    (int | str, "x"),
    (bool, True),
    (list[int], [1, 2]),
    (tuple[int, ...], [1, 2]),
    (Sequence[Mapping], [{"name": "shift"}]),
    (dict[str, Any], {"a": 1}),
    (Callable | None, "dense"),
    (Any, object()),
  ],
)
def test_a_value_of_the_annotated_type_is_taken(annotation, value):
  registry.check_type("x", value, annotation)


@pytest.mark.parametrize(
  ("annotation", "value", "wanted"),
  [
    (int | None, "3", "an int or none"),
    (float, True, "a number"),
    (float, "0.1", "a number"),
    (bool, 1, "a bool"),
    (str, 3, "a str"),
    (list[int], 3, "a list"),
    (Sequence[str], "text", "a list"),
    (Mapping[str, Any], [1], "a mapping"),
    (list[int], [1, "2"], "an int"),
    (Sequence[str] | None, ["a", None], "a str"),
    (tuple[float, ...], (0.5, [1]), "a number"),
  ],
)
def test_a_value_of_another_type_is_refused(annotation, value, wanted):
  assert f"It must be {wanted}." in refusal(registry.check_type, "x", value, annotation)


def test_a_function_that_takes_any_option_refuses_none():
  registry.check_options(lambda x, **rest: None, {"anything": 1}, "it", supplied=["x"])


def test_an_offer_is_for_those_who_ask_and_no_option_of_a_config():
  """contrastive takes the sharding of rows, by_row; classify does not."""
  assert registry.build("objectives", {"name": "classify"}, None, offers={"by_row": None})
  assert registry.build("objectives", {"name": "contrastive"}, None, offers={"by_row": None})
  with pytest.raises(UserError, match="contrastive takes no 'by_row'"):
    registry.build("objectives", {"name": "contrastive", "by_row": 1}, None, offers={"by_row": None})


@pytest.mark.parametrize("package", ENTRIES)
def test_a_registry_offers_nothing_but_entries(package):
  home, _, kind = ENTRIES[package].rpartition(".")
  kind = getattr(importlib.import_module(home if home == "collections.abc" else f"zoo.{home}"), kind)
  for name in registry.names(package):
    returns = typing.get_type_hints(registry.lookup(package, name))["return"]
    kinds = [typing.get_origin(one) or one for one in typing.get_args(returns) or (returns,)]
    assert returns is kind or all(issubclass(one, kind) for one in kinds), name


@pytest.mark.parametrize("name", ["augment", "published", "images", "sources", "tokenizers"])
def test_helpers_and_packages_are_no_pipelines(name):
  message = refusal(registry.build, "data", {"name": name})
  assert message.startswith(f"zoo/data has no '{name}'.") and "audio_text, choices, chunked_texts" in message
