"""Accuracy of a classifier on held-out examples."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax

from zoo.evaluate.forward import gather, model_output, records_of


def classification(model: Any, *, data: Mapping | Any, batch_size: int = 64) -> Callable:
  """-> evaluate(params, folder=None, step=None) -> {"accuracy", "balanced_accuracy", "loss", "majority/accuracy", ...}.

  Balanced accuracy is the mean recall over classes. The row `majority` always predicts the most frequent class.

  Args:
    model: gives {"logits" [batch, num_classes]} for the `image`, or for the `tokens`, of a batch.
    data: section of a pipeline that gives `label` int32, e.g. `labelled_images`, or its records.
    batch_size: examples at a time.
  """
  records = records_of(data, model, "classification")

  @jax.jit
  def forward(params: Any, batch: dict) -> dict:
    logits = model_output(model, params, batch, "logits", "classification")
    label = batch["label"]
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    return {"nll": nll, "right": logits.argmax(-1) == label, "label": label}

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    results = gather(forward, params, records, batch_size)
    right, label = results["right"], results["label"]
    classes, count = np.unique(label, return_counts=True)
    return {
      "accuracy": float(right.mean()),
      "balanced_accuracy": float(np.mean([right[label == c].mean() for c in classes])),
      "loss": float(results["nll"].mean(dtype=np.float64)),
      "majority/accuracy": float(count.max() / count.sum()),
      "majority/balanced_accuracy": 1 / len(classes),
    }

  return evaluate
