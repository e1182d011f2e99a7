import pickle
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

from zoo.data import package_data
from zoo.data.tokenizers import named, tokenizer
from zoo.errors import UserError

NAMES = ["gpt2", "clip", "bert", "bytes", "sotu"]
ODD = "It’s “quoted” &amp; naïve CAFÉ  12345 日本語 😀!!!"
CLIP_ODD = [585, 568, 257, 27706, 257, 261, 1097, 35689, 563, 15304, 272, 273, 274, 275, 276, 39121, 44353, 34002, 508]
LINES = ["", " ", "\n\n", "Fellow-Citizens of the Senate:", f"{ODD}\r\n\tTabs, don't they?  ", "x" * 500, "\x00\u2028"]


@pytest.mark.parametrize(
  "name, text, ids",
  [
    ("gpt2", "Hello, my dog is cute", [15496, 11, 616, 3290, 318, 13779]),
    ("clip", "a photo of a cat", [320, 1125, 539, 320, 2368]),
    ("clip", ODD, [*CLIP_ODD, 12832, 995]),  # of OpenAI's own program
    ("bert", "The weather is lovely today.", [1996, 4633, 2003, 8403, 2651, 1012]),
    ("bytes", "é!", [195, 169, 33]),
  ],
)
def test_gives_the_ids_of_the_reference(name, text, ids):
  assert tokenizer(name).encode(text) == ids


@pytest.mark.parametrize(
  "name, vocab_size, pad, eos, bos, cls, sep, mask",
  [
    ("gpt2", 50257, None, 50256, 50256, None, None, None),
    ("clip", 49408, 0, 49407, 49406, None, None, None),
    ("bert", 30522, 0, None, None, 101, 102, 103),
    ("bytes", 260, 256, 258, 257, 257, 258, 259),
    ("sotu", 4096, 4092, 4094, 4093, 4093, 4094, 4095),
  ],
)
def test_has_the_published_size_and_special_ids(name, vocab_size, pad, eos, bos, cls, sep, mask):
  it = tokenizer(name)
  assert it.vocab_size == vocab_size
  assert (it.pad, it.eos, it.bos, it.cls, it.sep, it.mask) == (pad, eos, bos, cls, sep, mask)


@pytest.mark.parametrize("name", ["gpt2", "bytes", "sotu"])
def test_byte_level_encodings_restore_any_text_exactly(name):
  it = tokenizer(name)
  for text in LINES:
    assert it.decode(it.encode(text)) == text


@pytest.mark.parametrize("name", ["sotu", "bert", "clip"])
def test_special_tokens_may_be_left_out_of_a_text(name):
  it = tokenizer(name)
  ids = it(["the union"])["tokens"][0]
  assert it.decode(ids, special=False) == "the union" != it.decode(ids)


def test_lower_case_encodings_restore_plain_words():
  assert tokenizer("clip").decode(tokenizer("clip").encode("A  Photo of a naïve cat")) == "a photo of a naïve cat"
  assert tokenizer("bert").decode(tokenizer("bert").encode("Unaffable weather, today.")) == "unaffable weather, today."


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_the_texts_one_by_one(name):
  it = tokenizer(name)
  assert it.encode_batch(LINES) == [it.encode(text) for text in LINES]
  assert it.encode_batch([]) == []


@pytest.mark.parametrize("name", NAMES)
def test_half_a_character_is_refused_in_one_line_that_names_it(name):
  for encodes in (tokenizer(name), tokenizer(name).encode, lambda text: tokenizer(name).encode_batch(["a", text])):
    with pytest.raises(
      UserError, match=r"contains half a character, '\\ud83d' at 6 in 'a cut \\ud83d', i.e. a lone surrogate"
    ):
      encodes("a cut \ud83d")
    with pytest.raises(UserError, match="A text is 3, an int. It must be a str."):
      encodes(3)


@pytest.mark.parametrize("name", NAMES)
def test_text_that_looks_like_a_special_token_is_text(name):
  it = tokenizer(name)
  special = {it.pad, it.eos, it.bos, it.cls, it.sep, it.mask} - {None}
  if name == "clip":
    special -= {0}  # CLIP pads with the id of "!"
  text = "<|endoftext|> <|startoftext|> [MASK] [CLS] [SEP] [PAD] <|mask|> <|end|> <|begin|> <|pad|>"
  assert not special & set(it.encode(text))
  assert all(len(it.decode([token])) > 3 for token in special)


@pytest.mark.parametrize("name", NAMES)
def test_words_begin_where_a_reader_sees_them(name):
  it = tokenizer(name)
  text = "unconstitutionality (of 1790) returns"
  ids = it.encode(text)
  starts = it.word_starts(np.array(ids))
  assert starts.dtype == bool and starts.shape == (len(ids),)
  places = [*np.flatnonzero(starts), len(ids)]
  words = [it.decode(ids[start:end]).strip() for start, end in zip(places, places[1:])]
  year = [*"1790"] if name == "clip" else ["1790"]  # CLIP reads every digit as a word.
  expected = ["unconstitutionality", "(", "of", *year, ")", "returns"]
  assert [word for word in words if word] == expected


def test_special_tokens_are_words_of_their_own():
  it = tokenizer("bert")
  ids = [it.cls, *it.encode("unaffable"), it.sep, it.pad]
  assert it.word_starts(ids).tolist() == [True, True, False, False, True, True]
  assert it.word_starts([]).tolist() == []


def test_our_own_vocabulary_writes_speeches_in_a_quarter_of_the_tokens_that_bytes_take():
  text = "I have the honor to inform Congress that the public debt has been reduced by several millions of dollars."
  assert len(tokenizer("sotu").encode(text)) < len(text) / 4


def test_a_tokenizer_json_gives_the_ids_it_was_written_with(tmp_path):
  original, path = tokenizer("bert"), tmp_path / "tokenizer.json"
  original.backend.save(str(path))
  copy = tokenizer(str(path))
  assert copy.encode_batch(LINES) == original.encode_batch(LINES)
  assert (copy.pad, copy.cls, copy.sep, copy.mask, copy.eos) == (0, 101, 102, 103, None)
  assert copy.word_starts([101, 14477, 20961, 3468]).tolist() == [True, True, False, False]


@pytest.mark.parametrize("name", NAMES)
def test_another_process_opens_the_same(name):
  assert pickle.loads(pickle.dumps(tokenizer(name))) is tokenizer(name)


def test_nothing_asks_the_network(monkeypatch):
  def refuse(*args, **kwargs):
    raise AssertionError("a tokenizer asked the network")

  named._open.cache_clear()
  for function in ("connect", "connect_ex"):
    monkeypatch.setattr(socket.socket, function, refuse)
  monkeypatch.setattr(socket, "getaddrinfo", refuse)
  for name in NAMES:
    tokenizer(name).encode("Hello")


def test_importing_the_module_loads_no_tokenizer_package():
  program = "import sys, zoo.data.tokenizers; print([m for m in ('tiktoken', 'tokenizers', 'PIL') if m in sys.modules])"
  assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_links_that_lead_nowhere_beside_a_tokenizer_do_not_matter(tmp_path):
  save = tokenizer("bert").backend.save
  save(str(tmp_path / "tokenizer.json"))
  (tmp_path / "README.md").symlink_to(tmp_path / "blobs" / "README.md")
  (tmp_path / "loop").symlink_to(tmp_path / "loop")
  assert tokenizer(str(tmp_path)).encode("lovely") == tokenizer("bert").encode("lovely")


def test_an_unknown_name_is_one_line_with_a_suggestion():
  with pytest.raises(UserError, match=r"no tokenizer 'gtp2'. Did you mean 'gpt2'\? There are: gpt2, clip, bert, bytes"):
    tokenizer("gtp2")


def test_a_wrong_file_is_one_line(tmp_path):
  with pytest.raises(UserError, match="no tokenizer file .*missing.json. Check the path"):
    tokenizer(str(tmp_path / "missing.json"))
  (tmp_path / "wrong.json").write_text("{")
  with pytest.raises(UserError, match="wrong.json cannot be used: .*Download its files again"):
    tokenizer(str(tmp_path / "wrong.json"))


def test_an_id_outside_the_vocabulary_is_one_line():
  with pytest.raises(UserError, match="50300 is not a token id of gpt2: its ids are 0 to 50256."):
    tokenizer("gpt2").decode([15496, 50300])
  assert tokenizer("gpt2").text_of([15496, 50300]) == "Hello"


def test_a_damaged_vocabulary_is_one_line(tmp_path, monkeypatch):
  monkeypatch.setattr(package_data, "FOLDER", tmp_path)
  named._open.cache_clear()
  with pytest.raises(UserError, match="sotu.bpe.xz is missing or corrupt:"):
    tokenizer("sotu")
  shutil.copytree(package_data.__file__.replace("package_data.py", "embedded/vocab"), tmp_path / "vocab")
  file = tmp_path / "vocab" / "sotu.bpe.xz"
  file.write_bytes(file.read_bytes()[:-100])
  with pytest.raises(UserError, match="sotu.bpe.xz is missing or corrupt"):
    tokenizer("sotu")
