import itertools

import numpy as np
import pytest

from zoo.evaluate import ranking

RIGHT = np.eye(3, dtype=bool)


def test_recall_is_the_share_of_queries_answered_among_the_first_k():
  scores = np.array([[9.0, 1, 2], [5, 3, 4], [7, 6, 5]])  # first, third, third
  places = ranking.ranks(scores, RIGHT)
  assert places.tolist() == [1, 3, 3]
  assert [ranking.recall(places, k) for k in (1, 2, 3)] == [1 / 3, 1 / 3, 1.0]


def test_a_tie_counts_against_the_ranking():
  assert ranking.ranks(np.array([[5.0, 5, 1], [0, 0, 0], [1, 2, 2]]), RIGHT).tolist() == [2, 3, 2]


def test_any_of_several_right_answers_is_a_hit_and_none_stands_in_anothers_way():
  right = np.array([[True, True, False, True]])
  assert ranking.ranks(np.array([[1.0, 4, 3, 2]]), right).tolist() == [1]
  assert ranking.ranks(np.array([[3.0, 3, 4, 3]]), right).tolist() == [2]  # three ties that are all right


def test_scores_that_are_no_numbers_find_nothing():
  nan, inf = float("nan"), float("inf")
  scores = np.array([[nan, 1, 2], [nan, 1, 0], [-inf, -inf, -inf]])
  assert ranking.ranks(scores, RIGHT).tolist() == [3, 2, 3]


def test_chance_is_the_mean_over_all_orders():
  right = np.array([[True, False, False, True], [False, True, False, False]])
  orders = [np.array(order, float) for order in itertools.permutations(range(4))]
  for k in (1, 2, 3, 9):
    hits = [ranking.recall(ranking.ranks(np.stack([order, order]), right), k) for order in orders]
    assert ranking.chance(right, k) == pytest.approx(np.mean(hits))


def test_a_query_without_a_right_answer_is_refused():
  with pytest.raises(ValueError, match="1 queries have no right answer in the gallery; the first has index 1"):
    ranking.ranks(np.zeros((2, 2)), np.array([[True, False], [False, False]]))


def test_ranks_of_vectors_are_those_of_the_whole_table_whatever_the_block(monkeypatch):
  rng = np.random.default_rng(0)
  queries, answers = rng.integers(-2, 3, (17, 3)).astype(float), rng.integers(-2, 3, (11, 3)).astype(float)
  of_query, of_answer = rng.integers(0, 5, 17), np.r_[np.arange(5), rng.integers(0, 5, 6)]
  whole = ranking.ranks(queries @ answers.T, of_query[:, None] == of_answer[None])
  for block in (1, 25, 1000):
    monkeypatch.setattr(ranking, "BLOCK", block)
    assert ranking.ranks_of_vectors(queries, answers, of_query, of_answer).tolist() == whole.tolist()
