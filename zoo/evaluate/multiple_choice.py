"""Accuracy on multiple choice, as in SWAG and RACE."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax

from zoo.errors import UserError
from zoo.evaluate.forward import model_output, needs_output, outputs, records_of


def multiple_choice(model: Any, *, data: Mapping | Any, batch_size: int = 16) -> Callable:
  """Evaluator: (params, folder=None, step=None) -> {"accuracy", "loss", "chance/accuracy", "majority/accuracy"}.

  The row `majority` always takes the index that is right most often.

  Args:
    model: returns {"logits" [batch, choices]} for `tokens` [batch, choices, length].
    data: section of the pipeline `choices`, or its records.
    batch_size: examples per batch.

  Raises:
    UserError: the model has no head for multiple choice.
  """
  needs_output(model, "logits", "multiple_choice")
  records = records_of(data, model, "multiple_choice", "tokens", "label")

  @jax.jit
  def forward(params: Any, batch: dict) -> dict:
    logits = model_output(model, params, batch, "logits", "multiple_choice")
    if logits.shape != batch["tokens"].shape[:2]:
      raise UserError("multiple_choice needs a model that chooses. Build it with head='multiple_choice'.")
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    return {"right": logits.argmax(-1) == batch["label"], "nll": nll}

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    right, nll, labels = 0, 0.0, Counter[int]()
    choices = 1
    for results, batch in outputs(forward, params, records, batch_size, model, trim=True):
      choices = batch["tokens"].shape[1]
      right += int(results["right"].sum())
      nll += float(results["nll"].sum(dtype=np.float64))
      labels.update(batch["label"].tolist())
    questions = labels.total()
    return {
      "accuracy": right / questions,
      "loss": nll / questions,
      "chance/accuracy": 1 / choices,
      "majority/accuracy": max(labels.values()) / questions,
    }

  return evaluate
