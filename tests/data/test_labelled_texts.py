import numpy as np
import pytest

from tests.data.toys import write_jsonl
from zoo.data.labelled_texts import labelled_texts
from zoo.data.pipeline import batches
from zoo.errors import UserError

ROWS = [
  {"text": "lovely", "other": "today .", "label": "good"},
  {"text": "The weather is lovely today.", "other": "no", "label": "bad"},
  {"text": "so so", "other": "yes", "label": "good"},
]
NAMES = ["bad", "good"]


@pytest.fixture
def source(tmp_path):
  write_jsonl(tmp_path / "rows.jsonl", ROWS)
  return f"jsonl:{tmp_path}"


def by_text(records):
  return {records.source[i]["text"]: records[i] for i in range(len(records))}


def test_texts_have_the_special_tokens_of_the_model_and_the_number_of_their_class(source):
  records = labelled_texts(source, max_length=5, class_names=NAMES)
  examples = by_text(records)
  assert examples["lovely"]["tokens"].tolist() == [101, 8403, 102, 0, 0]
  assert examples["lovely"]["valid"].tolist() == [True] * 3 + [False] * 2
  assert examples["The weather is lovely today."]["tokens"].tolist() == [101, 1996, 4633, 2003, 102]
  assert [int(examples[row["text"]]["label"]) for row in ROWS] == [1, 0, 1]
  assert examples["lovely"]["label"].dtype == np.int32 and "segments" not in examples["lovely"]
  assert records.info["num_classes"] == 2 and records.info["vocab_size"] == 30522


def test_a_second_text_is_the_second_segment(source):
  examples = by_text(labelled_texts(source, max_length=7, pair_field="other", class_names=NAMES))
  assert examples["lovely"]["tokens"].tolist() == [101, 8403, 102, 2651, 1012, 102, 0]
  assert examples["lovely"]["segments"].tolist() == [0, 0, 0, 1, 1, 1, 0]


def test_they_make_batches(source):
  batch = batches(labelled_texts(source, max_length=6, class_names=NAMES), 2, seed=0)[0]
  assert {name: array.shape for name, array in batch.items()} == {"tokens": (2, 6), "valid": (2, 6), "label": (2,)}


MISTAKES = {
  "class": ({"class_names": ["good"]}, "label 'bad' is not a class. The classes are: good"),
  "field": ({"text_field": "txt"}, "has no field 'txt'. Did you mean 'text'"),
  "length": (
    {"max_length": 600, "class_names": NAMES},
    r"max_length is 600. The tokenizer 'bert' makes sequences of 1 to 512",
  ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_line(mistake, source):
  options, message = MISTAKES[mistake]
  with pytest.raises(UserError, match=message):
    records = labelled_texts(source, **options)
    [records[i] for i in range(len(records))]
