"""Semantic textual similarity (STS): correlation of cosine similarities with human scores."""

import copy
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.bad_records import without_bad
from zoo.embed import Embedder, embed
from zoo.errors import UserError
from zoo.evaluate.correlation import correlations
from zoo.evaluate.forward import records_of
from zoo.hub.sentence_carried import carried_encoder
from zoo.train.model_data import tokenizer_for

CHUNK = 32  # Batches of pairs sorted by length together.


def similarity(model: Any, *, data: Mapping | Any, batch_size: int = 32, embedder: Any = None) -> Callable:
  """Evaluator: (params, folder=None, step=None) -> {"spearman", "pearson"} of cosines of pairs with their scores.

  Vectors are those of `zoo.embed`: pooled as the model carries it, by default the mean over the tokens.

  Args:
    model: a text encoder.
    data: section of the pipeline `scored_pairs`, or `compared_texts` with a score, or its records:
      `score`, and `texts(index)`.
    batch_size: texts per batch.
    embedder: from `zoo.embedder`, with the pooling of its folder.
  """
  records = without_bad(records_of(data, None, "similarity"))
  if not hasattr(records, "texts"):
    raise UserError("similarity needs scored pairs of texts. Use the data pipeline scored_pairs.")
  if embedder is None:
    embedder = Embedder(Path(), carried_encoder(model, Path()), model, None)
    embedder.tokenizer = tokenizer_for(model, None, "bert", "similarity")

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    make = copy.copy(embedder)
    make.params = params
    cosines, scores = [], []
    for start in range(0, len(records), CHUNK * batch_size):
      chunk = range(start, min(start + CHUNK * batch_size, len(records)))
      pairs = [records.texts(index) for index in chunk]
      first, second = np.split(embed(make, [text for side in zip(*pairs) for text in side], batch_size=batch_size), 2)
      cosines.append(_cosine(first.astype(np.float64), second.astype(np.float64)))
      scores.append(np.array([records[index]["score"] for index in chunk], np.float64))
    metrics = correlations(np.concatenate(cosines), np.concatenate(scores))
    return {name: metrics[name] for name in ("spearman", "pearson")}

  return evaluate


def _cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Cosine similarity: [n, dim], [n, dim] -> [n]; 0 for zero vectors."""
  lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
  return np.sum(first * second, axis=1) / np.where(lengths > 0, lengths, 1.0)
