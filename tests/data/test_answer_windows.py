import numpy as np
import pytest

from tests.data.test_question_answers import CONTEXT, ROWS
from tests.data.toys import write_jsonl
from tests.evaluate import hub
from zoo.data.answer_windows import answer_windows
from zoo.data.pipeline import batches
from zoo.errors import UserError


def opened(tmp_path, rows=ROWS, **options):
  write_jsonl(tmp_path / "rows.jsonl", rows)
  return answer_windows(f"jsonl:{tmp_path}", **{"max_length": 14, "stride": 3, **options})


def test_each_window_is_an_example_and_those_without_the_answer_have_none(tmp_path):
  records = opened(tmp_path)
  windows = sum(len(records.questions.windows(index)[1]) for index in range(2))
  assert len(records) == windows > 4
  answers = []
  for index in range(windows):
    row = records[index]
    answers.append(records.questions.tokenizer.decode(row["tokens"][row["start"] : row["end"] + 1]))
    if row["start"] == 0:
      assert row["end"] == 0
  assert set(answers) == {"rome", "[CLS]"} and 1 <= answers.count("rome") <= 2  # Windows overlap.
  assert batches(records, 3, seed=0)[0]["tokens"].shape == (3, 14)


def test_windows_and_answers_are_those_of_the_usual_recipe(tmp_path):
  """That of run_squad in examples of transformers: prepare_train_features, written anew."""
  transformers = pytest.importorskip("transformers")
  folder = hub.bert_folder(tmp_path / "m", None)
  rng, rows = hub.generator(), []
  for number in range(30):
    context = hub.sentence(rng, 60)
    words = context.split()
    first = number % len(words)
    answer = " ".join(words[first : first + 1 + number % 3])
    start = len(" ".join(words[:first])) + (first > 0)
    answers = {"text": [answer], "answer_start": [start]} if number % 4 else {"text": [], "answer_start": []}
    rows.append({"question": hub.sentence(rng, 6), "context": context, "answers": answers})
  records = opened(tmp_path, rows, tokenizer=str(folder), max_length=20, stride=5)
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  want = []
  for index in range(len(records.questions)):
    question = records.questions.question(index)
    encoded = tokenizer(
      question.question,
      question.context,
      truncation="only_second",
      max_length=20,
      stride=5,
      return_overflowing_tokens=True,
      return_offsets_mapping=True,
      padding="max_length",
    )
    for window, ids in enumerate(encoded["input_ids"]):
      span = (0, 0)
      places = encoded["offset_mapping"][window]
      inside = [token for token, of in enumerate(encoded.sequence_ids(window)) if of == 1]
      for text, first in question.answers:
        end = first + len(text)
        if places[inside[0]][0] <= first and places[inside[-1]][1] >= end:
          span = (
            max(token for token in inside if places[token][0] <= first),
            min(token for token in inside if places[token][1] >= end),
          )
      want.append((ids, span))
  assert len(records) == len(want) > 40
  for index, (ids, span) in enumerate(want):
    row = records[index]
    assert row["tokens"].tolist() == ids and (int(row["start"]), int(row["end"])) == span, index


def test_questions_that_cannot_be_read_are_refused_or_skipped(tmp_path):
  rows = [*ROWS, {"question": "", "context": CONTEXT, "answers": ""}]
  with pytest.raises(UserError, match="question is empty. Fix or remove it, or set data.bad_records=skip."):
    len(opened(tmp_path, rows))
  skipping = opened(tmp_path, rows, bad_records={"action": "skip", "most": 0.4})
  assert len(skipping) == len(opened(tmp_path)) and len(skipping.bad) == 1
  np.testing.assert_array_equal(
    np.sort([skipping[index]["start"] for index in range(len(skipping))]),
    np.sort([opened(tmp_path)[index]["start"] for index in range(len(skipping))]),
  )
  with pytest.raises(UserError, match="1 of 3 records are bad"):
    len(opened(tmp_path, rows, bad_records={"action": "skip", "most": 0.1}))
