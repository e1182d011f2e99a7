import re

import numpy as np
import pytest

from tests.data.toys import write_jsonl
from zoo.data.chunked_texts import chunked_texts
from zoo.data.labelled_texts import labelled_texts
from zoo.errors import UserError
from zoo.evaluate.bag_of_words import bag_of_words

COMMON, TELLING = "the and of to in is it was for on with as".split(), ("sea", "war")


def texts(rng, count, before=11):
  """Documents of `before` common words, and then the one that tells the class."""
  return [
    {"text": " ".join([*rng.choice(COMMON, before), TELLING[n % 2], *rng.choice(COMMON, 3)]), "label": n % 2}
    for n in range(count)
  ]


@pytest.fixture
def sources(tmp_path):
  rng, names = np.random.default_rng(0), ("train", "test")
  for name in names:
    write_jsonl(tmp_path / f"{name}.jsonl", texts(rng, 20))
  return [f"jsonl:{tmp_path / name}.jsonl" for name in names]


def test_a_word_is_read_wherever_it_stands_and_not_in_the_tokens_before_it(sources):
  for pipeline in (lambda s: labelled_texts(s, max_length=31), lambda s: chunked_texts(s, max_length=7, max_chunks=5)):
    train, test = map(pipeline, sources)
    metrics = bag_of_words(None, data=test, train_data=train, first=[11, 12])({})
    assert metrics["accuracy"] == metrics["first_12/accuracy"] == 1.0
    assert metrics["first_11/accuracy"] < 0.8


def test_a_pipeline_that_truncates_truncates_for_the_baseline(sources):
  train, test = (labelled_texts(source, max_length=9) for source in sources)
  assert bag_of_words(None, data=test, train_data=train)({})["accuracy"] < 0.8


def test_the_order_of_words_does_not_count(sources, tmp_path):
  train, test = (labelled_texts(source, max_length=31) for source in sources)
  backwards = [{**row, "text": " ".join(reversed(row["text"].split()))} for row in texts(np.random.default_rng(3), 20)]
  write_jsonl(tmp_path / "back.jsonl", backwards)
  reversed_test = labelled_texts(f"jsonl:{tmp_path / 'back.jsonl'}", max_length=31)
  assert bag_of_words(None, data=reversed_test, train_data=train)({})["accuracy"] == 1.0


def test_what_it_cannot_fit_is_refused_in_one_line(sources, tmp_path):
  train, test = (labelled_texts(source, max_length=31) for source in sources)
  with pytest.raises(UserError, match="first is \\[0\\]. It must be"):
    bag_of_words(None, data=test, train_data=train, first=0)
  write_jsonl(tmp_path / "one.jsonl", [{"text": "the sea", "label": 0}] * 3)
  with pytest.raises(UserError, match="all documents of train_data are of one class"):
    bag_of_words(None, data=test, train_data=labelled_texts(f"jsonl:{tmp_path / 'one.jsonl'}"))({})
  write_jsonl(tmp_path / "each.jsonl", [{"text": ["the sea", "the war"], "label": [0, 1]}] * 3)
  each = chunked_texts(f"jsonl:{tmp_path / 'each.jsonl'}", max_length=7, max_chunks=5)
  with pytest.raises(UserError, match=re.escape("It needs one label for each document.")):
    bag_of_words(None, data=each, train_data=each)({})
