"""Few-shot linear probe of frozen features."""

import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import UserError
from zoo.evaluate.forward import model_output, needs_output, outputs, records_of
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
  """Evaluator: (params, folder=None, step=None) -> {"accuracy_5_shot", "std_5_shot", "pixels/accuracy_5_shot", ...}.

  Logistic regression (scikit-learn) on standardised features of k training examples per class, tested on all of `data`;
  mean and standard deviation over `repeats` draws of the examples. The row `pixels` is the same on raw pixels
  with the same examples; `majority` always predicts the most frequent class.

  Args:
    model: with a method encode_image, or with an output "pooled" [batch, dim].
    data, train_data: sections of a pipeline with `label`, e.g. `labelled_images`, or their records.
    batch_size: examples per batch.
    shots: training examples per class, or several such numbers; a class with fewer examples uses all of them.
    repeats: number of draws.
    seed: of the draws.
    strength: inverse of the regularisation, scikit-learn's C.

  Raises:
    UserError: shots or repeats are not positive, or the data do not fit.
  """
  shots = (shots,) if isinstance(shots, int) else tuple(shots)
  if not all(k > 0 for k in shots) or repeats < 1:
    raise UserError(f"linear_probe: shots {list(shots)} and repeats {repeats} must be positive.")
  if not hasattr(model, "encode_image"):
    needs_output(model, "pooled", "linear_probe")
  fields = ("label", "image" if hasattr(model, "encode_image") else "image or tokens")
  test, train = (records_of(section, model, "linear_probe", *fields) for section in (data, train_data))

  @jax.jit
  def embed(params: Any, batch: dict) -> dict:
    if hasattr(model, "encode_image"):
      feature = model.apply(variables(params), as_float(batch["image"], model), method="encode_image")
    else:
      feature = model_output(model, params, batch, "pooled", "linear_probe")
    return {"feature": feature.astype(jnp.float32), "label": batch["label"]}

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    features = lambda records: (rows for rows, _ in outputs(embed, params, records, batch_size, model))
    metrics, labels = probed(features(train), features(test), shots, repeats, seed, strength)
    if isinstance(train[0].get("image"), np.ndarray):
      metrics |= {f"pixels/{key}": value for key, value in pixel_probe().items()}
    return metrics | {f"majority/accuracy_{k}_shot": max(labels.values()) / labels.total() for k in shots}

  def pixel_probe() -> dict[str, float]:
    if not pixel_metrics:
      sides = (pixels(records, batch_size) for records in (train, test))
      pixel_metrics.update(probed(*sides, shots, repeats, seed, strength)[0])
    return pixel_metrics

  pixel_metrics: dict[str, float] = {}
  return evaluate


def probed(
  train: Iterable[dict], test: Iterable[dict], shots: Sequence[int], repeats: int, seed: int, strength: float
) -> tuple[dict[str, float], Counter[int]]:
  """Accuracies by shots, and how often each label occurs in `test`.

  Args:
    train, test: batches of `feature` [n, dim] and `label` [n]; features are not held in memory.
    shots, repeats, seed, strength: as in `linear_probe`.
  """
  probes = fitted(train, shots, repeats, seed, strength)
  right, labels = dict.fromkeys(probes, 0), Counter[int]()
  for rows in test:
    labels.update(rows["label"].tolist())
    for key, probe in probes.items():
      right[key] += int((probe.predict(rows["feature"]) == rows["label"]).sum())
  metrics = {}
  for k in shots:
    scores = [right[k, repeat] / labels.total() for repeat in range(repeats)]
    metrics |= {f"accuracy_{k}_shot": float(np.mean(scores)), f"std_{k}_shot": float(np.std(scores))}
  return metrics, labels


def fitted(
  train: Iterable[dict], shots: Sequence[int], repeats: int, seed: int, strength: float
) -> dict[tuple[int, int], Any]:
  """Fits classifiers -> {(shots, repeat): classifier}. Features are buffered in a temporary file."""
  from sklearn.linear_model import LogisticRegression
  from sklearn.pipeline import make_pipeline
  from sklearn.preprocessing import StandardScaler

  labels, dim = [], 0
  with tempfile.TemporaryFile() as file:
    for rows in train:
      labels.append(rows["label"])
      dim = rows["feature"].shape[1]
      np.ascontiguousarray(rows["feature"], np.float32).tofile(file)
    label = np.concatenate(labels)
    file.flush()
    features = np.memmap(file, np.float32, "r", shape=(len(label), dim))
    of_class = [np.flatnonzero(label == name) for name in np.unique(label)]
    probes = {}
    for k, repeat in itertools.product(shots, range(repeats)):
      rng = np.random.default_rng([seed, repeat])
      chosen = np.concatenate([rng.permutation(rows)[:k] for rows in of_class])
      probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000))
      probes[k, repeat] = probe.fit(np.array(features[chosen]), label[chosen])
    del features
  return probes


def pixels(records: Any, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
  """Raw pixels as features, batch by batch: feature float32 [batch, height * width * channels], label int [batch]."""
  for start in range(0, len(records), batch_size):
    examples = [records[index] for index in range(start, min(start + batch_size, len(records)))]
    feature = np.stack([example["image"].reshape(-1) for example in examples]).astype(np.float32)
    yield {"feature": feature, "label": np.array([example["label"] for example in examples])}
