import numpy as np

from zoo.evaluate import ranking
from zoo.evaluate.vectors import Vectors


def test_rows_come_back_in_the_order_that_is_asked_for():
  rng = np.random.default_rng(0)
  whole = rng.normal(size=(23, 5))
  vectors = Vectors()
  for part in np.split(whole, [7, 8, 19]):
    vectors.append(part)
  index = np.array([3, 4, 5, 22, 0, 1, 1, 9])
  rows = vectors.rows(index)
  assert len(rows) == 8 and rows[2].shape == (5,)
  np.testing.assert_array_equal(rows[:], whole[index].astype(np.float32))
  np.testing.assert_array_equal(rows[5:11], whole[index[5:11]].astype(np.float32))
  np.testing.assert_array_equal(rows[3], whole[22].astype(np.float32))
  assert vectors.rows(np.array([], int))[:].shape == (0, 5)


def test_ranks_of_vectors_in_a_file_are_those_of_the_whole_table(monkeypatch):
  rng = np.random.default_rng(0)
  queries, answers = rng.integers(-2, 3, (17, 3)), rng.integers(-2, 3, (11, 3))  # Whole numbers: many ties.
  of_query, of_answer = rng.integers(0, 5, 17), np.r_[np.arange(5), rng.integers(0, 5, 6)]
  whole = ranking.ranks(queries @ answers.T, of_query[:, None] == of_answer[None])
  sides = [Vectors(), Vectors()]
  for side, rows in zip(sides, (queries, answers)):
    side.append(rows)
  files = [side.rows(np.arange(len(rows))) for side, rows in zip(sides, (queries, answers))]
  for block, at_a_time in ((1, 1), (25, 4), (1000, 3), (1000, 1000)):
    monkeypatch.setattr(ranking, "BLOCK", block)
    monkeypatch.setattr(ranking, "ROWS", at_a_time)
    assert ranking.ranks_of_vectors(*files, of_query, of_answer).tolist() == whole.tolist()
