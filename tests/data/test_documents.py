import numpy as np
import pytest

from tests.data.toys import write_jsonl
from zoo.data.documents import documents
from zoo.data.packed import packed
from zoo.errors import UserError

TEXTS = ["abcdefg", "hi", "jklmnopqrstu", "", "vwxyz"]


@pytest.fixture
def section(tmp_path, monkeypatch):
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
  (tmp_path / "data").mkdir()
  write_jsonl(tmp_path / "data" / "a.jsonl", [{"text": text} for text in TEXTS])
  return {"source": f"jsonl:{tmp_path / 'data'}", "tokenizer": "bytes", "max_length": 6}


def spelled(example, encoder):
  """Letters, with ( and ) for the tokens that begin and end a text."""
  letters = {encoder.bos: "(", encoder.eos: ")"}
  return "".join(letters.get(token, chr(token)) for token in example["tokens"][example["valid"]].tolist())


def rows(records):
  return [spelled(records[index], records.info["tokenizer"]) for index in range(len(records))]


def test_a_long_text_is_cut_where_every_token_is_predicted_once(section):
  records = documents(**section)
  assert sorted(rows(records)) == sorted(["(abcde", "efg)", "(hi)", "(jklmn", "nopqrs", "stu)", "()", "(vwxyz", "z)"])
  assert records.sizes[0].tolist() == [len(row) for row in rows(records)]
  assert records.info["tokens"] == sum(len(text) + 1 for text in TEXTS) == records.info["bytes"] + len(TEXTS)
  assert records.info["documents"] == 5 and records.info["texts"] == 9 and records.info["cropped"] == 0


def test_a_masked_text_is_cut_into_whole_ones(section):
  records = documents(**section, learns="masked")
  assert sorted(rows(records)) == sorted(
    ["(abcd)", "(efg)", "(hi)", "(jklm)", "(nopq)", "(rstu)", "()", "(vwxy)", "(z)"]
  )
  example = records[rows(records).index("(hi)")]
  np.testing.assert_array_equal(example["special"], [True, False, False, True, True, True])
  assert example["word_start"][0] and "tokens" not in records.info


@pytest.mark.parametrize("learns, kept", [("next", "(jklmn"), ("masked", "(jklm)")])
def test_what_is_cropped_is_counted(section, learns, kept):
  records = documents(**section, learns=learns, long="crop")
  assert len(records) == 5 and kept in rows(records)
  letters = "".join(rows(records)).replace("(", "").replace(")", "")
  assert records.info["cropped"] == len("".join(TEXTS)) - len(letters) > 0
  assert "bytes" not in records.info


def test_paragraphs_and_sentences_are_texts_of_their_own(section, tmp_path):
  write_jsonl(tmp_path / "data" / "a.jsonl", [{"text": "One. Two.\n\n\nThree."}])
  section = {**section, "max_length": 20}
  assert rows(documents(**section, unit="paragraph")) == ["(One. Two.)", "(Three.)"]
  assert rows(documents(**section, unit="sentence")) == ["(One.)", "(Two.)", "(Three.)"]


@pytest.mark.parametrize("learns", ["next", "masked"])
def test_packed_rows_hold_every_text_once_and_whole(section, learns):
  records = packed({"name": "documents", **section, "learns": learns}, max_length=13)
  decoded = []
  for index in range(len(records)):
    row = records[index]
    assert all(array.shape == (13,) for array in row.values()) and row["segment_ids"].dtype == np.int32
    np.testing.assert_array_equal(row["valid"], row["segment_ids"] > 0)
    for number in range(1, row["segment_ids"].max() + 1):
      of_document = row["segment_ids"] == number
      decoded.append(spelled({"tokens": row["tokens"], "valid": of_document}, records.info["tokenizer"]))
      if learns == "masked":
        assert (
          row["special"][of_document][[0, -1]].all()
          and not row["special"][of_document][1:-1].any()
          and row["special"][-1]
        )
  assert sorted(decoded) == sorted(rows(records.records))
  real = sum(len(row) for row in rows(records.records))
  assert records.info["useful"] == real / (13 * len(records)) > 0.7 and records.info["rows"] == len(records)


def test_a_mistake_ends_in_one_line(section):
  with pytest.raises(
    UserError, match="A text has 6 tokens, a packed sequence 5. Raise max_length of packed, or lower that of its"
  ):
    packed({"name": "documents", **section}, max_length=5)
  with pytest.raises(UserError, match="documents.unit is 'word'. It may be: document, paragraph, sentence."):
    documents(**section, unit="word")
  with pytest.raises(UserError, match="max_length is 2. It must be at least 3: a first, a middle and an end token."):
    documents(**{**section, "max_length": 2})
