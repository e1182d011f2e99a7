"""Pearson's and Spearman's correlation."""

import numpy as np


def correlations(scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
  """Correlations {"pearson", "spearman"} by SciPy; NaN if one side is constant.

  Args:
    scores, targets: float [n].

  >>> correlations(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 9.0]))["spearman"]
  1.0
  """
  from scipy import stats

  if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(targets) == 0:
    return {"pearson": float("nan"), "spearman": float("nan")}
  return {
    "pearson": float(stats.pearsonr(scores, targets).statistic),
    "spearman": float(stats.spearmanr(scores, targets).statistic),
  }
