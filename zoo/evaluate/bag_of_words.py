"""A linear classifier of the words of a document, without their order: what a model of texts has to beat."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo.data.tokenizers.base import ROLES
from zoo.errors import UserError
from zoo.evaluate.forward import records_of


def bag_of_words(
  model: Any, *, data: Mapping | Any, train_data: Mapping | Any, first: int | Sequence[int] = (), strength: float = 1.0
) -> Callable:
  """Evaluator: (params, folder=None, step=None) -> {"accuracy", "first_512/accuracy", ...}.

  A linear support vector machine on TF-IDF of the words, 1 + log(count), that occur in two documents or more, both
  scikit-learn's. It does not depend on the parameters, and is fitted once.

  Args:
    model: not used.
    data, train_data: sections of a pipeline with `tokens`, `valid` and one `label`, `labelled_texts` or
      `chunked_texts`, or their records. A pipeline that truncates truncates for the baseline too.
    first: the row `first_N` reads the first N tokens of every document, of training too; one number or several.
    strength: inverse of the regularisation, scikit-learn's C.

  Raises:
    UserError: `first` is below 1, a document has several labels, or training has one class only.
  """
  lengths = (first,) if isinstance(first, int) else tuple(first)
  if any(length < 1 for length in lengths):
    raise UserError(f"bag_of_words: first is {list(lengths)}. It must be numbers of tokens, at least 1.")
  test, train = (
    records_of(section, model, "bag_of_words", "tokens", "valid", "label") for section in (data, train_data)
  )
  metrics: dict[str, float] = {}

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    if not metrics:
      sides = documents(train), documents(test)
      metrics["accuracy"] = accuracy(*sides, None, strength)
      metrics.update({f"first_{length}/accuracy": accuracy(*sides, length, strength) for length in lengths})
    return dict(metrics)

  return evaluate


def documents(records: Any) -> tuple[list[list[int]], list[int], Any]:
  """The real tokens without special ones of all documents, their labels, and the tokenizer."""
  tokenizer = records.info["tokenizer"]
  special = [getattr(tokenizer, role) for role in ROLES]
  ids, labels = [], []
  for index in range(len(records)):
    example = records[index]
    if np.ndim(example["label"]):
      raise UserError("bag_of_words: the chunks of a document have a label each. It needs one label for each document.")
    ids.append([token for token in example["tokens"][example["valid"]].tolist() if token not in special])
    labels.append(int(example["label"]))
  return ids, labels, tokenizer


def accuracy(train: tuple, test: tuple, length: int | None, strength: float) -> float:
  """Accuracy on `test` of the classifier fitted to `train`, both from `documents`; length: tokens read, None: all."""
  from sklearn.feature_extraction.text import TfidfVectorizer
  from sklearn.pipeline import make_pipeline
  from sklearn.svm import LinearSVC

  if len(set(train[1])) < 2:
    raise UserError("bag_of_words: all documents of train_data are of one class. Choose another split of training.")
  texts = lambda side: [side[2].decode(ids[:length]) for ids in side[0]]
  classifier = make_pipeline(TfidfVectorizer(sublinear_tf=True, min_df=2), LinearSVC(C=strength))
  return float(classifier.fit(texts(train), train[1]).score(texts(test), test[1]))
