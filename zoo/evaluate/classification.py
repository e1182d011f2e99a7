"""Accuracy, F1 and correlation of a classifier on held-out examples."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax

from zoo.errors import UserError
from zoo.evaluate.forward import model_output, needs_output, outputs, records_of


def classification(model: Any, *, data: Mapping | Any, batch_size: int = 64) -> Callable:
  """Evaluator: (params, folder=None, step=None) -> {"accuracy", "balanced_accuracy", "f1_macro", ...}.

  Balanced accuracy is the mean recall over classes; `f1` is that of class 1, only with two classes; f1, f1_macro
  and matthews are scikit-learn's. The row `majority` always predicts the most frequent class.

  Args:
    model: returns {"logits" [batch, num_classes]} for the `image`, or for the `tokens`, of a batch.
    data: section of a pipeline with `label` int32, e.g. `labelled_images`, or its records.
    batch_size: examples per batch.

  Raises:
    UserError: the model returns no logits, the data have no labels, or labels that are not its classes.
  """
  needs_output(model, "logits", "classification")
  records = records_of(data, model, "classification", "label", "image or tokens")

  @jax.jit
  def forward(params: Any, batch: dict) -> dict:
    logits = model_output(model, params, batch, "logits", "classification")
    return {"nll": optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]), "logits": logits}

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    pairs: Counter[tuple[int, int]] = Counter()  # (label, prediction) -> count: num_classes squared entries.
    nll, num_classes = 0.0, 0
    for results, batch in outputs(forward, params, records, batch_size, model, trim=True):
      label, num_classes = batch["label"], results["logits"].shape[-1]
      if not ((label >= 0) & (label < num_classes)).all():
        raise UserError(
          f"classification: there is a label {label.max()}, the model has classes 0 to {num_classes - 1}."
        )
      pairs.update(zip(label.tolist(), results["logits"].argmax(-1).tolist()))
      nll += float(results["nll"].sum(dtype=np.float64))
    return scores(pairs, num_classes) | {"loss": nll / pairs.total()} | majority(pairs)

  return evaluate


def scores(pairs: Mapping[tuple[int, int], int], num_classes: int) -> dict[str, float]:
  """Metrics from counts of (label, prediction).

  >>> scores({(0, 0): 2, (0, 1): 1, (1, 1): 1}, 2)["accuracy"]
  0.75
  """
  from sklearn.metrics import f1_score, matthews_corrcoef

  label, predicted = np.array(list(pairs)).T
  count = np.array(list(pairs.values()))
  recalls = [np.sum(count[(label == c) & (predicted == c)]) / count[label == c].sum() for c in np.unique(label)]
  options = {"sample_weight": count, "zero_division": 0.0}
  binary = {"f1": float(f1_score(label, predicted, **options))} if num_classes == 2 else {}
  return {
    "accuracy": float(count[label == predicted].sum() / count.sum()),
    "balanced_accuracy": float(np.mean(recalls)),
    **binary,
    "f1_macro": float(f1_score(label, predicted, average="macro", **options)),
    # With a single class there is no correlation: scikit-learn returns 0 and warns.
    "matthews": float(matthews_corrcoef(label, predicted, sample_weight=count))
    if len({*label, *predicted}) > 1
    else 0.0,
  }


def majority(pairs: Mapping[tuple[int, int], int]) -> dict[str, float]:
  """The baseline that always predicts the most frequent class."""
  labels: Counter[int] = Counter()
  for (label, _), count in pairs.items():
    labels[label] += count
  most = max(labels.values()) / labels.total()
  return {"majority/accuracy": most, "majority/balanced_accuracy": 1 / len(labels)}
