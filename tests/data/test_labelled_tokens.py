import numpy as np
import pytest

from tests.data.toys import write_jsonl
from zoo.data.labelled_tokens import labelled_tokens
from zoo.data.pipeline import batches
from zoo.errors import UserError

ROW = {"tokens": ["The", "weatherly", "is", "lovely"], "ner_tags": ["O", "B-X", "O", "I-X"]}
CLASSES = ["O", "B-X", "I-X"]


@pytest.fixture
def source(tmp_path):
  write_jsonl(tmp_path / "rows.jsonl", [ROW])
  return f"jsonl:{tmp_path}"


def test_the_first_token_of_a_word_has_its_class(source):
  records = labelled_tokens(source, max_length=9, classes=CLASSES)
  example = records[0]
  pieces = [records.tokenizer.decode([token]) for token in example["tokens"].tolist()]
  assert pieces[:7] == ["[CLS]", "the", "weather", "##ly", "is", "lovely", "[SEP]"]
  assert example["label"].tolist() == [-1, 0, 1, -1, 0, 2, -1, -1, -1]
  assert example["valid"].tolist() == [True] * 7 + [False] * 2 and example["cut"] == 0


def test_words_that_do_not_fit_are_counted(source):
  example = labelled_tokens(source, max_length=5, classes=CLASSES)[0]
  assert example["label"].tolist() == [-1, 0, 1, -1, -1] and example["cut"] == 2


def test_a_text_may_have_blanks_between_its_words(tmp_path):
  write_jsonl(tmp_path / "rows.jsonl", [{"tokens": " ".join(ROW["tokens"]), "ner_tags": "0 1 0 2"}])
  records = labelled_tokens(f"jsonl:{tmp_path}", max_length=9, classes=CLASSES)
  assert records[0]["label"].tolist() == [-1, 0, 1, -1, 0, 2, -1, -1, -1]


def test_they_make_batches(source):
  batch = batches(labelled_tokens(source, max_length=6, class_names=CLASSES), 2, seed=0)[0]
  assert batch["label"].shape == (2, 6) and batch["label"].dtype == np.int32


MISTAKES = {
  "count": ({"ner_tags": ["O"]}, "has 4 words and 1 labels"),
  "class": ({"ner_tags": ["O", "O", "B-Z", "O"]}, "label 'B-Z' is not one of the model's .* It has: O, B-X, I-X"),
  "none": ({"tokens": [], "ner_tags": []}, "must be a list with an entry for each word"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told(mistake, tmp_path):
  change, message = MISTAKES[mistake]
  write_jsonl(tmp_path / "rows.jsonl", [{**ROW, **change}])
  with pytest.raises(UserError, match=f"rows.jsonl line 1.*{message}"):
    labelled_tokens(f"jsonl:{tmp_path}", classes=CLASSES)[0]


def test_a_tokenizer_without_words_is_refused(source):
  with pytest.raises(UserError, match="Tokenizer gpt2 does not map tokens to words"):
    labelled_tokens(source, tokenizer="gpt2", classes=CLASSES)[0]
