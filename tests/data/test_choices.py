import pytest

from tests.data.toys import write_jsonl
from zoo.data.choices import choices, right_one
from zoo.data.pipeline import batches
from zoo.errors import UserError

ROW = {"question": "The weather is", "choices": ["lovely", "no"], "label": "B"}


def opened(tmp_path, *rows, **options):
  write_jsonl(tmp_path / "rows.jsonl", rows)
  return choices(f"jsonl:{tmp_path}", max_length=9, **options)


def test_each_choice_is_a_pair_with_the_text(tmp_path):
  example = opened(tmp_path, ROW)[0]
  assert (
    example["tokens"].shape == example["valid"].shape == example["segments"].shape == (2, 9) and example["label"] == 1
  )
  assert example["tokens"][:, :5].tolist() == [[101, 1996, 4633, 2003, 102]] * 2
  assert example["segments"].sum(1).tolist() == [2, 2]


def test_choices_may_be_several_fields_that_begin_alike(tmp_path):
  row = {"question": "The weather", "begin": "is", "a": "lovely", "b": "no", "label": 1}
  example = opened(tmp_path, row, start_field="begin", choices_field=["a", "b"])[0]
  plain = opened(tmp_path, {**ROW, "question": "The weather", "choices": ["is lovely", "is no"]})[0]
  assert example["tokens"].tolist() == plain["tokens"].tolist()


def test_they_make_batches(tmp_path):
  assert batches(opened(tmp_path, ROW), 3, seed=0)[0]["tokens"].shape == (3, 2, 9)


@pytest.mark.parametrize(
  ("label", "names", "number"),
  [(1, "AB", 1), ("1", "AB", 1), ("B", "AB", 1), ("no", "AB", 1), ("1", "12", 0), (b"A", "AB", 0)],
)
def test_the_right_one_is_a_number_a_letter_a_name_or_a_text(label, names, number):
  assert right_one(label, ["yes", "no"], list(names), "record 0") == number


@pytest.mark.parametrize("label", [2, -1, "C", "", None, True])
def test_a_label_that_is_no_choice_is_refused(label):
  with pytest.raises(UserError, match="record 0 is .* not one of the 2 choices: A, B"):
    right_one(label, ["yes", "no"], ["A", "B"], "record 0")


def test_all_records_have_as_many_choices(tmp_path):
  records = opened(tmp_path, ROW, {**ROW, "choices": ["a", "b", "c"]})
  with pytest.raises(UserError, match="has . choices, the first record .. All need equally many."):
    [records[0], records[1]]
