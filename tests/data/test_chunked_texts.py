import numpy as np
import pytest

from tests.data.toys import write_jsonl
from zoo.data.chunked_texts import chunked_texts
from zoo.data.pipeline import batches
from zoo.errors import UserError

WORDS = "the weather is lovely today and it is so sunny outside".split()
ROWS = [{"text": " ".join(WORDS), "label": "b"}, {"text": "so sunny", "label": "a"}]


@pytest.fixture
def source(tmp_path):
  write_jsonl(tmp_path / "rows.jsonl", ROWS)
  return f"jsonl:{tmp_path}"


def with_label(records, label):
  """The example with this label, wherever it is: files are read in hash order."""
  return next(example for example in (records[index] for index in range(len(records))) if example["label"] == label)


def pieces(records, example):
  """The words of each chunk, and the example."""
  words = [records.tokenizer.decode(row[real]).split() for row, real in zip(example["tokens"], example["valid"])]
  return [chunk for chunk in words if chunk], example


def test_a_text_is_cut_into_chunks_with_special_tokens(source):
  records = chunked_texts(source, max_length=6, max_chunks=4)
  chunks, example = pieces(records, with_label(records, 1))
  assert chunks == [["[CLS]", *WORDS[first : first + 4], "[SEP]"] for first in (0, 4, 8)]
  assert example["tokens"].shape == example["valid"].shape == (4, 6) and example["tokens"].dtype == np.int32
  assert example["valid"].sum(1).tolist() == [6, 6, 5, 0] and (example["label"], example["cut"]) == (1, 0)
  assert pieces(records, with_label(records, 0))[0] == [["[CLS]", "so", "sunny", "[SEP]"]]
  assert records.info["class_names"] == ["a", "b"]


def test_chunks_overlap_and_those_that_do_not_fit_are_counted(source):
  records = chunked_texts(source, max_length=6, max_chunks=2, overlap=1)
  chunks, example = pieces(records, with_label(records, 1))
  assert [chunk[1:-1] for chunk in chunks] == [WORDS[:4], WORDS[3:7]] and example["cut"] == 2
  records = chunked_texts(source, max_length=6, max_chunks=9, overlap=3)
  chunks, example = pieces(records, with_label(records, 1))
  assert [chunk[1] for chunk in chunks] == WORDS[:8] and chunks[-1][1:-1] == WORDS[7:] and example["cut"] == 0


def test_a_tokenizer_without_special_tokens_fills_a_chunk_with_text(source):
  records = chunked_texts(source, tokenizer="gpt2", max_length=5, max_chunks=3)
  example = with_label(records, 1)
  assert records.tokenizer.decode(example["tokens"][example["valid"]]) == " ".join(WORDS)


def test_a_list_of_texts_has_a_label_for_each_or_one(tmp_path):
  write_jsonl(tmp_path / "rows.jsonl", [{"text": ["so sunny outside today", "lovely"], "label": [1, 0]}])
  records = chunked_texts(f"jsonl:{tmp_path}", max_length=5, max_chunks=3)
  chunks, example = pieces(records, records[0])
  assert chunks == [["[CLS]", "so", "sunny", "outside", "[SEP]"], ["[CLS]", "lovely", "[SEP]"]]
  assert example["label"].tolist() == [1, 0, -1]
  write_jsonl(tmp_path / "rows.jsonl", [{"text": ["so sunny", "lovely"], "label": 1}])
  assert chunked_texts(f"jsonl:{tmp_path}", max_length=5, max_chunks=3)[0]["label"] == 1


def test_they_make_batches(source):
  batch = batches(chunked_texts(source, max_length=6, max_chunks=3), 2, seed=0)[0]
  assert batch["tokens"].shape == (2, 3, 6) and batch["label"].shape == (2,)


MISTAKES = {
  "count": ({"text": ["a", "b"], "label": ["a"]}, "has 2 chunks and 1 labels. Give each text of a list its own"),
  "one text": ({"label": ["a", "b"]}, "has 3 chunks and 2 labels"),
  "class": ({"label": "c"}, "label 'c' is not one of the model's classes"),
  "empty": ({"text": " "}, "text is empty"),
  "none": ({"text": []}, "must be a list"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told(mistake, tmp_path):
  change, message = MISTAKES[mistake]
  write_jsonl(tmp_path / "rows.jsonl", [{**ROWS[0], **change}])
  with pytest.raises(UserError, match=f"rows.jsonl line 1.*{message}"):
    chunked_texts(f"jsonl:{tmp_path}", max_length=6, classes=["a", "b"])[0]


@pytest.mark.parametrize("options", [{"overlap": 4}, {"max_chunks": 0}, {"overlap": -1}])
def test_chunks_without_room_for_text_are_refused(source, options):
  with pytest.raises(UserError, match="max_length 6, 2 special tokens and an overlap of .* leave no room for text"):
    chunked_texts(source, **{"max_length": 6, "max_chunks": 3, **options})
