import numpy as np
import pytest

from tests.data.toys import write_jsonl
from zoo.data.compared_texts import compared_texts
from zoo.data.pipeline import batches
from zoo.errors import UserError

ROW = {"anchor": "the weather", "positive": "lovely", "negative": "no"}


def opened(tmp_path, *rows, **options):
  """The records in the order of `rows`; a source has another order."""
  write_jsonl(tmp_path / "rows.jsonl", [{**row, "row": index} for index, row in enumerate(rows)])
  records = compared_texts(f"jsonl:{tmp_path}", max_length=7, **options)
  order = np.argsort([records.source[index]["row"] for index in range(len(records))]).tolist()
  records.source = [records.source[index] for index in order]
  records.source = type("Rows", (list,), {"where": lambda self, index: f"row {index}"})(records.source)
  records.prepared._source = records.source
  return records


def test_each_text_is_a_row_of_its_own(tmp_path):
  records = opened(tmp_path, ROW, {**ROW, "anchor": "lovely"}, negatives_field="negative")
  example = records[0]
  assert example["tokens"].shape == example["valid"].shape == (3, 7)
  assert example["tokens"][0, :4].tolist() == [101, 1996, 4633, 102] and example["valid"].sum(1).tolist() == [4, 3, 3]
  assert example["present"].all() and records.texts(0) == ["the weather", "lovely", "no"]
  assert records[1]["text_ids"][0] == example["text_ids"][1] and len(set(example["text_ids"].tolist())) == 3


def test_they_make_batches(tmp_path):
  write_jsonl(tmp_path / "rows.jsonl", [ROW])
  records = compared_texts(f"jsonl:{tmp_path}", max_length=7)
  assert batches(records, 3, seed=0)[0]["tokens"].shape == (3, 2, 7)


def test_negatives_may_be_a_list_or_several_fields_and_may_be_missing(tmp_path):
  listed = opened(tmp_path, {**ROW, "negative": ["no", "a"]}, {**ROW, "negative": ["no"]}, negatives_field="negative")
  assert listed[1]["present"].tolist() == [True, True, True, False] and listed.info["negatives"] == 2
  rows = {**ROW, "n1": "no", "n2": "a"}, {**ROW, "n1": "", "n2": "a"}
  several = opened(tmp_path, *rows, negatives_field=["n1", "n2"])
  np.testing.assert_array_equal(several[0]["tokens"], listed[0]["tokens"])
  assert several[1]["present"].tolist() == [True, True, False, True] and several.texts(1)[2:] == ["", "a"]


def test_longer_lists_are_refused_or_cut(tmp_path):
  rows = {**ROW, "negative": ["no", "a", "b"]}, {**ROW, "negative": ["no"]}
  records = opened(tmp_path, *rows, negatives_field="negative")
  records.count = 2  # As if the long list came after the records that are counted.
  with pytest.raises(UserError, match="row 0 has 3 negatives, the first 100 records at most 2. Set num_negatives."):
    records[0]
  assert opened(tmp_path, *rows, negatives_field="negative", num_negatives=2).texts(0)[2:] == ["no", "a"]
  with pytest.raises(UserError, match="num_negatives is 0. It must be at least 1"):
    opened(tmp_path, *rows, negatives_field="negative", num_negatives=0)


def test_prompts_come_before_the_texts(tmp_path):
  plain = opened(tmp_path, {"anchor": "find the weather", "positive": "it is lovely"})[0]
  prefixed = opened(tmp_path, ROW, query_prompt="find ", document_prompt="it is ")
  np.testing.assert_array_equal(prefixed[0]["tokens"], plain["tokens"])
  assert prefixed.texts(0) == ["the weather", "lovely"]


def test_scores_are_cosines_or_on_a_range_that_is_said(tmp_path):
  rows = [{**ROW, "score": "0.5"}, {**ROW, "score": 5}]
  with pytest.raises(UserError, match="is 5, not a cosine in .-1, 1.. Set .*score_range="):
    opened(tmp_path, *rows, score_field="score")[1]
  scored = opened(tmp_path, *rows, score_field="score", score_range=[0, 5])
  assert [float(scored[index]["score"]) for index in (0, 1)] == pytest.approx([0.1, 1.0])
  with pytest.raises(UserError, match="It must be two numbers, the lower one first"):
    opened(tmp_path, *rows, score_field="score", score_range=[5, 0])


def test_a_text_that_is_missing_is_refused(tmp_path):
  with pytest.raises(UserError, match="positive is empty"):
    opened(tmp_path, {**ROW, "positive": " "})[0]
  with pytest.raises(UserError, match="has no field 'positiv'. Did you mean 'positive'"):
    opened(tmp_path, ROW, pair_field="positiv")
