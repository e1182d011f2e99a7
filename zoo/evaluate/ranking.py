"""Recall at k of a ranking."""

from collections.abc import Sequence
from math import comb

import numpy as np

BLOCK = 2**24  # Scores that are held at a time.


def ranks(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
  """The rank of the best right answer of every query, 1 being first.

  Ties count against us: a wrong answer with the same score stands before the right one, so that a constant score finds
  nothing. Several right answers (duplicates) are each a hit, and none of them stands in another's way.

  Args:
    scores: [queries, answers] float, larger is nearer. -inf is never found.
    right: [queries, answers] bool; every query needs a right answer.

  Returns:
    [queries] int.
  """
  lonely = np.flatnonzero(~right.any(axis=1))
  if len(lonely):
    raise ValueError(f"{len(lonely)} queries have no right answer in the gallery; the first has index {lonely[0]}.")
  best = np.where(right, scores, -np.inf).max(axis=1)
  before = ~right & ~(scores < best[:, None])  # not (a < b): a score that is not a number stands before
  return 1 + before.sum(axis=1)


def ranks_of_vectors(
  queries: np.ndarray, answers: np.ndarray, query_groups: np.ndarray, answer_groups: np.ndarray
) -> np.ndarray:
  """`ranks` of the products of vectors, block by block: memory does not grow with queries times answers.

  Args:
    queries, answers: float [queries, dim], [answers, dim].
    query_groups, answer_groups: int [queries], [answers]; equal ones belong together.

  Returns:
    [queries] int.
  """
  rows = max(1, BLOCK // len(answers))
  blocks = [slice(start, start + rows) for start in range(0, len(queries), rows)]
  right = lambda block: query_groups[block, None] == answer_groups[None]
  return np.concatenate([ranks(queries[block] @ answers.T, right(block)) for block in blocks])


def recall(ranks: np.ndarray, k: int) -> float:
  """The share of queries whose best right answer is among the first k."""
  return float(np.mean(ranks <= k))


def chance(right: np.ndarray, k: int) -> float:
  """The recall of a ranking drawn at random, of right answers bool [queries, answers]; see `chance_of_counts`."""
  return chance_of_counts(right.sum(axis=1), right.shape[1], k)


def chance_of_counts(right: np.ndarray, answers: int, k: int) -> float:
  """The recall of a ranking drawn at random: 1 - C(n - m, k) / C(n, k) for m right answers of n, over all queries.

  Args:
    right: int [queries], m of each.
    answers: n.
    k: how many first answers count.
  """
  k = min(k, answers)
  counts, queries = np.unique(right, return_counts=True)
  missed = [comb(answers - int(m), k) / comb(answers, k) for m in counts]
  return float(1 - np.average(missed, weights=queries))


def recalls(ranks_of_right: np.ndarray, at: Sequence[int], prefix: str) -> dict[str, float]:
  """`{"image_to_text_r1": ..., "image_to_text_r5": ...}` for the prefix `image_to_text`."""
  return {f"{prefix}_r{k}": recall(ranks_of_right, k) for k in at}
