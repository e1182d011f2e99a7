import numpy as np
import pytest

from tests.data import toys
from zoo.data.pipeline import batches
from zoo.data.sentence_pairs import sentence_pairs, sentences
from zoo.data.tokenizers import tokenizer
from zoo.errors import UserError

BYTES = tokenizer("bytes")
DOCUMENTS = [[f"{letter}{i} {'x' * (i % 5)}." for i in range(8)] for letter in "ABCD"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def folder(tmp_path):
  toys.write_jsonl(tmp_path / "texts.jsonl", [{"text": " ".join(document)} for document in DOCUMENTS])
  return tmp_path


def open_pairs(folder, **options):
  options = {"tokenizer": "bytes", "max_length": 24, "short_rate": 0.0, **options}
  return sentence_pairs("jsonl:.", data_dir=str(folder), **options)


def drawn(records, steps=20):
  """Training examples of the first steps."""
  stream = batches(records, len(records), seed=0)
  for step in range(steps):
    batch = stream[step]
    for row in range(len(records)):
      yield {key: value[row] for key, value in batch.items()}


def segments(example):
  """The texts of the two segments."""
  inner = ~example["special"]
  return [BYTES.decode(example["tokens"][inner & (example["segments"] == number)]) for number in (0, 1)]


def test_an_example_is_packed_as_bert_packs_it(folder):
  for example in drawn(open_pairs(folder)):
    tokens, valid, special = example["tokens"], example["valid"], example["special"]
    end = int(valid.sum())
    middle = int(np.flatnonzero(tokens == BYTES.sep)[0])
    assert tokens[0] == BYTES.cls and tokens[end - 1] == BYTES.sep and (tokens[end:] == BYTES.pad).all()
    assert valid.tolist() == [True] * end + [False] * (24 - end)
    assert example["segments"].tolist() == [0] * (middle + 1) + [1] * (end - middle - 1) + [0] * (24 - end)
    assert np.flatnonzero(special).tolist() == [0, middle, *range(end - 1, 24)]
    assert 1 < middle < end - 2  # Neither segment is empty.


def test_the_second_segment_follows_or_comes_from_another_document(folder):
  whole = [" ".join(document).replace(" ", "") for document in DOCUMENTS]
  for example in drawn(open_pairs(folder, max_length=64)):
    first, second = (part.replace(" ", "") for part in segments(example))
    home = next(text for text in whole if first in text)
    if example["is_random"]:
      assert second not in home and any(second in text for text in whole)
    else:
      assert second in home[home.index(first) + len(first) :]


def test_half_of_the_pairs_are_random(folder):
  found = [int(example["is_random"]) for example in drawn(open_pairs(folder), steps=100)]
  assert abs(np.mean(found) - 0.5) < 5 * 0.5 / np.sqrt(len(found))
  assert example_types(open_pairs(folder)) == {0, 1}


def example_types(records):
  return {int(records[i]["is_random"]) for i in range(len(records))}


def test_every_sentence_is_in_an_example(folder):
  records = open_pairs(folder, max_length=64)
  seen = " ".join(part for example in drawn(records) if not example["is_random"] for part in segments(example))
  assert all(sentence in seen for document in DOCUMENTS for sentence in document)


def test_evaluation_repeats_itself_and_training_does_not(folder):
  records, again = open_pairs(folder), open_pairs(folder)
  for index in range(len(records)):
    for key, value in records[index].items():
      np.testing.assert_array_equal(value, again[index][key])
  assert len({tuple(example["tokens"]) for example in drawn(records)}) > 2 * len(records)


def test_some_examples_are_short_in_training_only(folder):
  records = open_pairs(folder, max_length=64, short_rate=1.0)
  lengths = [int(example["valid"].sum()) for example in drawn(records)]
  assert min(lengths) < 12 < 40 < max(lengths)
  full = open_pairs(folder, max_length=64)
  for index in range(len(records)):
    np.testing.assert_array_equal(records[index]["tokens"], full[index]["tokens"])


def test_words_begin_where_the_tokenizer_says(folder):
  example = open_pairs(folder, tokenizer="bert")[0]
  np.testing.assert_array_equal(example["word_start"], tokenizer("bert").word_starts(example["tokens"]))


@pytest.mark.parametrize(
  "text, expected",
  [
    ("One. Two! Three? Four.", ["One.", "Two!", "Three?", "Four."]),
    (
      'He said: "Stop." Then (after 3.5 hours) "Go!" 1 went.',
      ['He said: "Stop."', 'Then (after 3.5 hours) "Go!"', "1 went."],
    ),
    ("No end\n\nNew paragraph\nsame one", ["No end", "New paragraph\nsame one"]),
    ("e.g. this stays", ["e.g. this stays"]),
    ("“Quoted.” “Again.”", ["“Quoted.”", "“Again.”"]),
    ("  \n\n ", []),
  ],
)
def test_sentences_are_told_by_punctuation_and_paragraphs(text, expected):
  assert sentences(text) == expected


@pytest.mark.parametrize(
  "texts, options, message",
  [
    (["One. Two.", "Three. Four."], {"max_length": 7}, "max_length is 7"),
    (["One. Two.", "Three. Four."], {"short_rate": 2.0}, "short_rate is 2.0"),
    (["One. Two.", "Three. Four."], {"tokenizer": "gpt3"}, "no tokenizer 'gpt3'"),
    (["One. Two.", ""], {}, "holds fewer than two documents"),
    (["One.", "Two."], {}, r"No document has two sentences\."),
  ],
)
def test_what_makes_no_pairs_is_told(tmp_path, texts, options, message):
  toys.write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
  with pytest.raises(UserError, match=message):
    open_pairs(tmp_path, **options)
