import numpy as np
import pytest

from tests.data.toys import write_jsonl
from zoo.data.packed import fitted, packed
from zoo.data.pipeline import batches
from zoo.errors import UserError


@pytest.fixture
def texts(tmp_path, monkeypatch):
  """The section of a pipeline whose record n has a source of n % 11 + 1 bytes, and a target of n % 5 + 1."""
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
  rows = [{"source": chr(97 + n % 26) * (n % 11 + 1), "target": chr(65 + n % 26) * (n % 5 + 1)} for n in range(97)]
  (tmp_path / "data").mkdir()
  write_jsonl(tmp_path / "data" / "a.jsonl", rows)
  source = f"jsonl:{tmp_path / 'data'}"
  return {"name": "text_pairs", "source": source, "tokenizer": "bytes", "max_length": 12, "target_length": 6}


def parts(example, side):
  """The documents of a row; asserts that segment ids are runs 1, 2, ..., followed by padding."""
  ids, tokens = example[f"{side}segment_ids"], example[f"{side}tokens"]
  assert ids[ids > 0].tolist() == sorted(ids[ids > 0]) and set(ids[ids > 0]) == set(range(1, ids.max() + 1))
  np.testing.assert_array_equal(example[f"{side}valid"], ids > 0)
  assert ids[: (ids > 0).sum()].all()
  return [tokens[ids == n].tolist() for n in range(1, ids.max() + 1)]


def test_rows_hold_every_pair_once_and_whole(texts):
  records = packed(texts, max_length=40, target_length=20)
  pairs = []
  for index in range(len(records)):
    row = records[index]
    assert row["tokens"].shape == (40,) and row["target_tokens"].shape == (20,)
    pairs += zip(parts(row, ""), parts(row, "target_"), strict=True)
  alone = [records.records[n] for n in range(97)]
  expected = [(x["tokens"][x["valid"]].tolist(), x["target_tokens"][x["target_valid"]].tolist()) for x in alone]
  assert sorted(pairs) == sorted(expected)


def test_nearly_nothing_is_padded_and_how_much_is_told(texts):
  records = packed(texts, max_length=80, target_length=48)
  rows = [records[n] for n in range(len(records))]
  real = sum(row["valid"].sum() + row["target_valid"].sum() for row in rows)
  assert records.info["useful"] == real / (len(rows) * 128) > 0.9
  assert records.info["pairs"] == 97 and records.info["max_length"] == 80 and records.info["target_length"] == 48


def test_a_batch_follows_from_seed_and_step_alone(texts):
  first, again = (batches(packed(texts, max_length=40), 3, seed=1) for _ in range(2))
  for step in (5, 0, 23):
    for name, array in first[step].items():
      np.testing.assert_array_equal(again[step][name], array)
  other = packed(texts, max_length=40, seed=1).rows
  assert other != packed(texts, max_length=40).rows


def test_pairs_go_where_both_of_their_texts_have_room():
  sizes = np.array([[6, 1], [4, 4], [1, 2], [3, 3]])
  assert fitted(np.arange(4), sizes, (10, 5)) == [[1, 0], [3, 2]]


def test_a_mistake_ends_in_one_line(texts):
  with pytest.raises(
    UserError, match="A pair has 12 and 6 tokens, a packed sequence 20 and 5. Raise max_length and target_length"
  ):
    packed(texts, max_length=20, target_length=5)
  with pytest.raises(UserError, match=r"packed needs data of known lengths. Use the pipeline documents or text_pairs"):
    packed({"name": "prefix_lm", "source": texts["source"], "tokenizer": "bytes", "text_field": "source"})
