import json
import pickle
import shutil

import numpy as np
import pytest

import zoo
from tests.hub_folder import published_bert
from zoo.data import package_data
from zoo.data.tokenizers import tokenizer
from zoo.errors import UserError

TEXTS = ["The weather is lovely today.", "[MASK]!", ""]


@pytest.fixture
def folder(tmp_path):
  """A BERT with its vocabulary, in the hub's layout."""
  published_bert(tmp_path)
  (tmp_path / "vocab.txt").write_text("\n".join(package_data.lines("vocab/bert.txt.xz")), encoding="utf-8")
  return tmp_path


def configure(folder, **entries):
  (folder / "tokenizer_config.json").write_text(json.dumps(entries))


def test_texts_become_a_batch_with_the_special_tokens_of_the_model(folder):
  batch = zoo.load_tokenizer(folder)(TEXTS)
  assert batch["tokens"].dtype == np.int32 and batch["valid"].dtype == bool
  assert batch["tokens"].tolist() == [
    [101, 1996, 4633, 2003, 8403, 2651, 1012, 102],
    [101, 103, 999, 102, 0, 0, 0, 0],
    [101, 102, 0, 0, 0, 0, 0, 0],
  ]
  assert batch["valid"].sum(1).tolist() == [8, 4, 2]


def test_the_second_texts_are_the_second_segment(folder):
  batch = zoo.load_tokenizer(folder)("lovely", "today .", length=7)
  assert batch["tokens"].tolist() == [[101, 8403, 102, 2651, 1012, 102, 0]]
  assert batch["segments"].tolist() == [[0, 0, 0, 1, 1, 1, 0]]
  with pytest.raises(UserError, match="There are 3 texts and 1 second texts"):
    zoo.load_tokenizer(folder)(TEXTS, "today")


def test_a_program_may_take_signs_as_text(folder):
  it = zoo.load_tokenizer(folder)
  assert it.mask not in it("[MASK]!", special=False)["tokens"]
  assert it.mask in it("[MASK]!")["tokens"] and it.mask not in it.encode("[MASK]!")


def test_what_is_too_long_is_cut_or_refused(folder):
  it = zoo.load_tokenizer(folder)
  assert it.max_length == 11  # The positions of the model.
  assert it("today " * 30)["tokens"].shape == (1, 11) and it("today " * 30)["tokens"][0, -1] == it.sep
  with pytest.raises(UserError, match="has 32 tokens, the limit is 11.*cut=True"):
    it("today " * 30, cut=False)
  with pytest.raises(UserError, match="length is 2, of which 2 are special tokens"):
    it("today", length=2)
  configure(folder, model_max_length=5, padding_side="left", truncation_side="left")
  it = zoo.load_tokenizer(folder)
  assert it(["lovely weather today , ok"])["tokens"].tolist() == [[101, 2651, 1010, 7929, 102]]
  assert it(["ok"], length=5)["tokens"].tolist() == [[0, 0, 101, 7929, 102]]


def test_settings_of_the_folder_are_heeded(folder):
  configure(folder, do_lower_case=False, tokenizer_class="BertTokenizer")
  assert zoo.load_tokenizer(folder).encode("lovely Lovely") == [8403, 100]
  tokenizer("bert").backend.save(str(folder / "tokenizer.json"))
  assert zoo.load_tokenizer(folder).encode("lovely Lovely") == [8403, 100]
  configure(folder, added_tokens_decoder={"30522": {"content": "<new>", "special": True}})
  assert zoo.load_tokenizer(folder)("<new>")["tokens"].tolist() == [[101, 30522, 102]]


def test_a_saved_model_has_the_tokenizer_that_it_came_with(folder, tmp_path_factory):
  configure(folder, tokenizer_class="BertTokenizer", do_lower_case=False)
  model, params = zoo.load(folder)
  new, other = (tmp_path_factory.mktemp(name) for name in ("new", "other"))
  (other / "tokenizer_config.json").write_text("{}")
  for target in (new, new, other):
    zoo.save_hf(target, model, params)
  assert sorted(path.name for path in new.iterdir()) == sorted(path.name for path in folder.iterdir())
  assert zoo.load_tokenizer(new)(TEXTS)["tokens"].tolist() == zoo.load_tokenizer(folder)(TEXTS)["tokens"].tolist()
  assert not (other / "vocab.txt").exists() and (other / "tokenizer_config.json").read_text() == "{}"
  (folder / "vocab.txt").unlink()  # The original folder may change or vanish.
  zoo.save_hf(other / "bare", model, params)
  assert sorted(path.name for path in (other / "bare").iterdir()) == ["config.json", "model.safetensors"]


def test_shipped_ones_go_by_name_and_clip_needs_no_files(tmp_path):
  assert zoo.load_tokenizer("clip")("a photo of a cat")["tokens"].tolist() == [
    [49406, 320, 1125, 539, 320, 2368, 49407]
  ]
  (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
  assert zoo.load_tokenizer(tmp_path) is zoo.load_tokenizer("clip")
  batch = zoo.load_tokenizer("gpt2")(["a photo", "<|endoftext|>a b c"])
  assert batch["tokens"].tolist() == [[64, 4590, 0, 0], [50256, 64, 275, 269]]
  assert batch["valid"].tolist() == [[True, True, False, False], [True] * 4]
  assert zoo.load_tokenizer("sotu")("", length=3)["tokens"].tolist() == [[4093, 4094, 4092]]
  with pytest.raises(UserError, match=r"gpt2 does not encode pairs of texts\."):
    zoo.load_tokenizer("gpt2")("a", "b")


def test_a_folder_that_is_named_as_a_shipped_one_has_its_own(folder, tmp_path, monkeypatch):
  shutil.copytree(folder, tmp_path / "gpt2")
  monkeypatch.chdir(tmp_path)
  assert zoo.load_tokenizer("gpt2").vocab_size == zoo.load_tokenizer(folder).vocab_size < 50_000


def test_a_run_has_the_tokenizer_of_its_data(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps({"model": {"family": "bert"}, "data": {"tokenizer": "bert"}}))
  assert zoo.load_tokenizer(tmp_path) is zoo.load_tokenizer("bert")


def test_another_process_opens_the_same(folder):
  it = zoo.load_tokenizer(folder)
  assert pickle.loads(pickle.dumps(it)) is it


MISTAKES = {
  "nothing": (["vocab.txt"], {}, "has no tokenizer: neither"),
  "sentence pieces": (["vocab.txt"], {"spiece.model": "x"}, "spiece.model but no tokenizer.json.*save_pretrained"),
  "an unknown class": (
    [],
    {"tokenizer_config.json": '{"tokenizer_class": "FunnyTokenizer"}'},
    "cannot build its tokenizer from that for 'FunnyTokenizer'",
  ),
  "no json": ([], {"tokenizer_config.json": "{"}, "tokenizer_config.json cannot be read as JSON"),
  "a list": ([], {"tokenizer_config.json": "[]"}, "tokenizer_config.json holds a list, not an object"),
  "no tokenizer": ([], {"tokenizer.json": '{"model": 3}'}, "cannot be read: .*Download its files again"),
  "no vocabulary": (["vocab.txt"], {"vocab.json": "[1]"}, "has no tokenizer|vocab.txt is missing"),
  "a setting": ([], {"tokenizer_config.json": '{"do_lower_case": 3}'}, "do_lower_case is 3. It must be a bool"),
  "no length": (
    [],
    {"tokenizer_config.json": '{"model_max_length": 0}'},
    "model_max_length is 0. It must be at least 1",
  ),
  "another vocabulary": (
    [],
    {"tokenizer_config.json": '{"added_tokens_decoder": {"9": {"content": "<new>"}}}'},
    "'<new>' should have id 9, but would get id 30522",
  ),
}


def test_a_tokenizer_that_lacks_what_it_puts_around_texts_is_refused(folder, tmp_path):
  # The tokenizers package panics there, which is no Exception.
  content = json.loads(zoo.load_tokenizer(folder).backend.to_str())
  content["post_processor"]["single"][0]["SpecialToken"]["id"] = "[NONE]"
  (folder / "tokenizer.json").write_text(json.dumps(content))
  with pytest.raises(UserError, match="cannot be used: .*Download its files again"):
    zoo.load_tokenizer(folder)
  content["post_processor"]["single"][0]["SpecialToken"]["id"] = "[CLS]"
  content["post_processor"]["pair"][0]["SpecialToken"]["id"] = "[NONE]"
  (folder / "tokenizer.json").write_text(json.dumps(content))
  with pytest.raises(UserError, match="cannot be used: .*Download its files again"):
    zoo.load_tokenizer(folder)("a", "b")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_folders_that_cannot_be_read_end_in_one_line(mistake, folder):
  remove, files, message = MISTAKES[mistake]
  for name in remove:
    (folder / name).unlink()
  for name, content in files.items():
    (folder / name).write_text(content)
  with pytest.raises(UserError, match=message):
    zoo.load_tokenizer(folder)
