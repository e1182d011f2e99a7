import numpy as np
import pytest

from tests.data.toys import write_jsonl
from zoo.data.bad_records import BadRecord
from zoo.data.question_answers import answers_of, question_answers
from zoo.errors import UserError

CONTEXT = "The weather in Paris is lovely, and that of Rome is warm and dry in all of the summer."
ROWS = [
  {"question": "Where?", "context": CONTEXT, "answers": {"text": ["Rome"], "answer_start": [CONTEXT.index("Rome")]}},
  {"question": "Why?", "context": CONTEXT, "answers": {"text": [], "answer_start": []}},
]


@pytest.fixture
def records(tmp_path):
  write_jsonl(tmp_path / "rows.jsonl", ROWS)
  return question_answers(f"jsonl:{tmp_path}", max_length=14, stride=3)


def by_question(records):
  return {records.question(index).question: index for index in range(len(records))}


def test_windows_overlap_and_hold_every_token_of_the_text(records):
  question, rows = records.windows(by_question(records)["Where?"])
  assert question.context == CONTEXT and len(rows) > 2
  places = [[tuple(pair) for pair in origin.tolist() if pair[0] >= 0] for _, origin in rows]
  assert all(before[-3:] == after[:3] for before, after in zip(places, places[1:]))
  covered = "".join(CONTEXT[first:end] for first, end in sorted(set().union(*places)))
  assert covered == CONTEXT.replace(" ", "")
  for row, origin in rows:
    assert row["tokens"].shape == (14,) and row["segments"][origin[:, 0] >= 0].all()


def test_an_example_is_the_window_with_the_answer(records):
  example = records[by_question(records)["Where?"]]
  answer = example["tokens"][example["start"] : example["end"] + 1]
  assert records.tokenizer.decode(answer) == "rome"
  none = records[by_question(records)["Why?"]]
  assert none["start"] == none["end"] == 0 and none["start"].dtype == np.int32


@pytest.mark.parametrize(
  ("value", "answers"),
  [
    ({"text": ["a", "b"], "answer_start": [1, 5]}, [("a", 1), ("b", 5)]),
    ([{"text": "a", "answer_start": 1}, "b"], [("a", 1), ("b", -1)]),
    ("a", [("a", -1)]),
    (["a", " "], [("a", -1)]),
    ({"text": np.array(["a"]), "answer_start": np.array([1])}, [("a", 1)]),
    (None, []),
  ],
)
def test_answers_come_in_many_forms(value, answers):
  assert answers_of(value, "record 0") == answers


def test_an_answer_that_is_not_where_it_is_said_to_be_is_a_bad_record(tmp_path):
  write_jsonl(tmp_path / "rows.jsonl", [{**ROWS[0], "answers": {"text": ["Rome"], "answer_start": [3]}}])
  with pytest.raises(BadRecord, match="answers has 'Rome' at answer_start 3, where context has ' wea'"):
    question_answers(f"jsonl:{tmp_path}", max_length=14, stride=3).question(0)


def test_a_question_that_leaves_no_room_is_refused(tmp_path):
  write_jsonl(tmp_path / "rows.jsonl", [{**ROWS[0], "question": "where " * 9}])
  with pytest.raises(UserError, match="takes 12 of 14 tokens, which leaves no room for windows that overlap by 3"):
    question_answers(f"jsonl:{tmp_path}", max_length=14, stride=3).windows(0)
