"""Few-shot linear probe of frozen features."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import UserError
from zoo.evaluate.forward import gather, model_output, records_of
from zoo.preprocessing import as_float
from zoo.tree import variables


def linear_probe(
  model: Any,
  *,
  data: Mapping | Any,
  train_data: Mapping | Any,
  batch_size: int = 64,
  shots: int | Sequence[int] = (1, 5, 10),
  repeats: int = 5,
  seed: int = 0,
  strength: float = 1.0,
) -> Callable:
  """-> evaluate(params, folder=None, step=None) -> {"accuracy_5_shot", "std_5_shot", "pixels/accuracy_5_shot", ...}.

  Logistic regression (scikit-learn) on standardised features of k training examples per class, tested on all of `data`;
  mean and standard deviation over `repeats` draws of the examples. The row `pixels` is the same on the images
  themselves, with the same examples; `majority` always predicts the most frequent class.

  Args:
    model: with a method encode_image, or with an output "pooled" [batch, dim].
    data, train_data: sections of a pipeline that gives `label`, e.g. `labelled_images`, or their records.
    batch_size: examples at a time.
    shots: training examples per class, or several numbers of them; a class that has fewer gives all of them.
    repeats: draws.
    seed: of the draws.
    strength: inverse of the regularisation, scikit-learn's C.
  """
  shots = (shots,) if isinstance(shots, int) else tuple(shots)
  if not all(k > 0 for k in shots) or repeats < 1:
    raise UserError(f"linear_probe: shots {list(shots)} and repeats {repeats} must be positive.")
  test, train = (records_of(section, model, "linear_probe") for section in (data, train_data))

  @jax.jit
  def embed(params: Any, batch: dict) -> dict:
    if hasattr(model, "encode_image"):
      feature = model.apply(variables(params), as_float(batch["image"], model), method="encode_image")
    else:
      feature = model_output(model, params, batch, "pooled", "linear_probe")
    return {"feature": feature.astype(jnp.float32), "label": batch["label"]}

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    train_rows, test_rows = (gather(embed, params, records, batch_size, model) for records in (train, test))
    metrics = probe(train_rows, test_rows)
    if isinstance(train[0].get("image"), np.ndarray):
      metrics |= {f"pixels/{key}": value for key, value in pixel_probe().items()}
    return metrics | {f"majority/accuracy_{k}_shot": float(majority(test_rows["label"])) for k in shots}

  def pixel_probe() -> dict[str, float]:
    if not pixel_metrics:
      pixel_metrics.update(probe(*(pixels(records) for records in (train, test))))
    return pixel_metrics

  pixel_metrics: dict[str, float] = {}

  def probe(train_rows: dict, test_rows: dict) -> dict[str, float]:
    metrics = {}
    for k in shots:
      scores = [score(train_rows, test_rows, k, np.random.default_rng([seed, r]), strength) for r in range(repeats)]
      metrics |= {f"accuracy_{k}_shot": float(np.mean(scores)), f"std_{k}_shot": float(np.std(scores))}
    return metrics

  return evaluate


def score(train: dict, test: dict, shots: int, rng: np.random.Generator, strength: float) -> float:
  """Accuracy on `test` after seeing `shots` examples of each class of `train`, drawn by `rng`."""
  from sklearn.linear_model import LogisticRegression
  from sklearn.pipeline import make_pipeline
  from sklearn.preprocessing import StandardScaler

  of_class = [np.flatnonzero(train["label"] == label) for label in np.unique(train["label"])]
  chosen = np.concatenate([rng.permutation(rows)[:shots] for rows in of_class])
  probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000))
  probe.fit(train["feature"][chosen], train["label"][chosen])
  return float(probe.score(test["feature"], test["label"]))


def pixels(records: Any) -> dict[str, np.ndarray]:
  """Raw pixels as features."""
  examples = [records[index] for index in range(len(records))]
  feature = np.stack([example["image"].reshape(-1) for example in examples]).astype(np.float32)
  return {"feature": feature, "label": np.array([example["label"] for example in examples])}


def majority(label: np.ndarray) -> float:
  """The share of the most frequent label."""
  return np.unique(label, return_counts=True)[1].max() / len(label)
