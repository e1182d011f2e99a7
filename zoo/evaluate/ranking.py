"""Recall at k of a ranking."""

from collections.abc import Sequence
from math import comb
from typing import Any

import numpy as np

BLOCK = 2**22  # Number of scores in memory at a time.
ROWS = 4096  # Number of vectors in memory at a time.


def ranks(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
  """The rank, from 1, of the best right answer of every query.

  Ties count as wrong: a wrong answer with the same score ranks before the right one, so that a constant score finds
  nothing. Several right answers (duplicates) are each a hit, and do not count against each other.

  Args:
    scores: [queries, answers] float, larger is better. -inf is never found.
    right: [queries, answers] bool; every query needs a right answer.

  Returns:
    [queries] int.
  """
  lonely = np.flatnonzero(~right.any(axis=1))
  if len(lonely):
    raise ValueError(f"{len(lonely)} queries have no right answer in the gallery; the first has index {lonely[0]}.")
  best = np.where(right, scores, -np.inf).max(axis=1)
  before = ~right & ~(scores < best[:, None])  # not (a < b): NaN ranks before
  return 1 + before.sum(axis=1)


def ranks_of_vectors(queries: Any, answers: Any, query_groups: np.ndarray, answer_groups: np.ndarray) -> np.ndarray:
  """`ranks` of the products of vectors, computed block by block: neither all scores nor all vectors are in memory.

  Args:
    queries, answers: float [queries, dim], [answers, dim]: arrays, or `zoo.evaluate.vectors.Rows`.
    query_groups, answer_groups: int [queries], [answers]; equal ones belong together.

  Returns:
    [queries] int.
  """
  rows = max(1, BLOCK // len(answers))
  blocks = [slice(start, start + rows) for start in range(0, len(queries), rows)]
  right = lambda block: query_groups[block, None] == answer_groups[None]
  return np.concatenate([ranks(scores_of(queries[block], answers), right(block)) for block in blocks])


def scores_of(queries: np.ndarray, answers: Any) -> np.ndarray:
  """Products with vectors, ROWS of them in memory at a time: [..., dim], [answers, dim] -> [..., answers]"""
  starts = range(0, len(answers), ROWS)
  return np.concatenate([queries @ answers[start : start + ROWS].T for start in starts], axis=-1)


def recall(ranks: np.ndarray, k: int) -> float:
  """Recall at k: the fraction of queries whose best right answer is among the first k.

  Args:
    ranks: int [queries], from 1: the rank of each query's best right answer.
    k: number of first answers that count.

  >>> recall(np.array([1, 3, 7, 2]), k=2)
  0.5
  """
  return float(np.mean(ranks <= k))


def chance(right: np.ndarray, k: int) -> float:
  """The recall of a random ranking, for right answers bool [queries, answers]; see `chance_of_counts`."""
  return chance_of_counts(right.sum(axis=1), right.shape[1], k)


def chance_of_counts(right: np.ndarray, answers: int, k: int) -> float:
  """The mean recall of a random ranking: 1 - C(n - m, k) / C(n, k) for m right answers of n.

  Args:
    right: int [queries], the m of each.
    answers: n.
    k: number of first answers that count.
  """
  k = min(k, answers)
  counts, queries = np.unique(right, return_counts=True)
  missed = [comb(answers - int(m), k) / comb(answers, k) for m in counts]
  return float(1 - np.average(missed, weights=queries))


def recalls(ranks_of_right: np.ndarray, at: Sequence[int], prefix: str) -> dict[str, float]:
  """`recall` at several k, by name, for ranks int [queries].

  >>> recalls(np.array([1, 3, 7, 2]), at=(1, 5), prefix="image_to_text")
  {'image_to_text_r1': 0.25, 'image_to_text_r5': 0.75}
  """
  return {f"{prefix}_r{k}": recall(ranks_of_right, k) for k in at}
