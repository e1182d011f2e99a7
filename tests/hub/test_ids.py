import sys
import types

import pytest

import zoo
from tests.hub_folder import published_bert
from zoo.errors import UserError
from zoo.hub.ids import folder_of
from zoo.hub.tokenizers import local_name
from zoo.train.model_data import records_for, with_local_tokenizer


@pytest.fixture
def asked(tmp_path, monkeypatch):
  """A fake hub with one id, whose subfolders are `text_encoder`, a model, and `old`, one of Flax -> its requests."""
  calls = []
  published_bert(tmp_path / "text_encoder")
  (tmp_path / "old").mkdir()

  def snapshot_download(repo, **options):
    calls.append((repo, options))
    return str(tmp_path)

  hub, errors = types.ModuleType("huggingface_hub"), types.ModuleType("huggingface_hub.errors")
  hub.snapshot_download, errors.HfHubHTTPError = snapshot_download, type("HfHubHTTPError", (OSError,), {})
  monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
  monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
  return calls


def test_a_part_of_an_id_is_fetched_alone(asked, tmp_path):
  folder = folder_of("someone/flux@bf16", "text_encoder", cache_dir="here")
  assert folder == tmp_path / "text_encoder"
  ((repo, options),) = asked
  assert repo == "someone/flux" and options["revision"] == "bf16" and options["cache_dir"] == "here"
  assert all(pattern.startswith("text_encoder/") for pattern in options["allow_patterns"])


def test_old_flax_files_are_fetched_where_there_is_nothing_else(asked):
  folder_of("someone/flux", "old")
  assert [any("msgpack" in pattern for pattern in options["allow_patterns"]) for _, options in asked] == [False, True]


def test_a_part_that_is_not_there_is_told(asked):
  with pytest.raises(UserError, match="has no subfolder 'text_encoder_2'. It has: old, text_encoder"):
    folder_of("someone/flux", "text_encoder_2")


def test_a_misspelt_folder_and_a_hub_that_does_not_answer_are_told_in_whole_sentences(asked, tmp_path, monkeypatch):
  def unreachable(repo, **options):
    raise OSError(
      "An error happened while trying to locate the files.\nPlease check your connection. " + "And so on. " * 40
    )

  monkeypatch.setattr(sys.modules["huggingface_hub"], "snapshot_download", unreachable)
  monkeypatch.chdir(tmp_path)
  (tmp_path / "hubs" / "gpt2").mkdir(parents=True)
  with pytest.raises(UserError) as error:
    folder_of("hubs/gpt3")
  assert str(error.value).startswith(
    "hubs/gpt3 is not a folder here (did you mean the folder hubs/gpt2?), and cannot be downloaded"
  )
  assert "files. Please check your connection. And so on." in str(error.value)
  assert str(error.value).endswith(".") and len(str(error.value)) < 450
  with pytest.raises(UserError, match="someone/gpt3 is not a folder here, and cannot"):
    folder_of("someone/gpt3")


def test_data_may_name_a_tokenizer_by_its_id(asked, tmp_path):
  (tmp_path / "texts").mkdir()
  (tmp_path / "texts" / "one.txt").write_text("We the people of the union. " * 9)
  (tmp_path / "config.json").write_text('{"model_type": "bert"}')
  words = "[PAD] [UNK] [CLS] [SEP] [MASK] we the people of union ."
  (tmp_path / "vocab.txt").write_text(words.replace(" ", "\n") + "\n")
  model = zoo.build("gpt", vocab_size=11, max_length=16, dim=6, depth=1, num_heads=2)
  data = {"name": "language", "source": f"text:{tmp_path}/texts", "max_length": 8, "cache": False}
  records = records_for(model, data | {"tokenizer": "someone/bert@v1"})
  assert records.info["tokenizer"].name == str(tmp_path)
  assert 7 in records[0]["tokens"]
  ((repo, options),) = asked
  assert repo == "someone/bert" and options["revision"] == "v1"
  assert not any("safetensors" in pattern for pattern in options["allow_patterns"])
  within = {"name": "packed", "data": {"members": {"one": {"tokenizer": "someone/bert"}}}}
  assert with_local_tokenizer(within)["data"]["members"]["one"]["tokenizer"] == str(tmp_path)
  for name in ("bert", "mine/tokenizer.json", str(tmp_path), 3, None):
    assert local_name(name) == name
