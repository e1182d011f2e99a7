"""Correlation and squared error of a regression model."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from zoo.errors import UserError
from zoo.evaluate.correlation import correlations
from zoo.evaluate.forward import model_output, needs_output, outputs, records_of


def regression(model: Any, *, data: Mapping | Any, batch_size: int = 64) -> Callable:
  """Evaluator: (params, folder=None, step=None) -> {"pearson", "spearman", "mse", "mean/mse"}.

  The row `mean` always predicts the mean of the data. Ranks need all predictions: eight bytes per record are kept.

  Args:
    model: returns {"logits" [batch, 1]} for the `tokens` of a batch.
    data: section of a pipeline with `score` float32, e.g. `scored_texts`, or its records.
    batch_size: examples per batch.
  """
  needs_output(model, "logits", "regression")
  records = records_of(data, model, "regression", "score", "image or tokens")

  @jax.jit
  def forward(params: Any, batch: dict) -> dict:
    logits = model_output(model, params, batch, "logits", "regression")
    if logits.shape[-1] != 1:
      raise UserError(f"regression needs a model of one number, this one has {logits.shape[-1]} classes.")
    return {"predictions": logits[:, 0]}

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    pairs = [
      np.stack([results["predictions"], batch["score"]])
      for results, batch in outputs(forward, params, records, batch_size, model, trim=True)
    ]
    predictions, targets = np.concatenate(pairs, axis=1).astype(np.float64)
    mse = float(np.mean((predictions - targets) ** 2))
    return correlations(predictions, targets) | {"mse": mse, "mean/mse": float(np.var(targets))}

  return evaluate
