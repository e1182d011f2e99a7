"""Finding the text that goes with another among all texts of a split."""

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from zoo.data.bad_records import without_bad
from zoo.embed import Embedder, embed
from zoo.errors import UserError
from zoo.evaluate.artifacts import write_json
from zoo.evaluate.forward import records_of
from zoo.evaluate.ranking import chance_of_counts, ranks, recall
from zoo.hub.sentence_carried import carried_encoder
from zoo.train.model_data import tokenizer_for

BLOCK = 2**24  # Cosines that are held at a time.


def search(
  model: Any,
  *,
  data: Mapping | Any,
  batch_size: int = 32,
  at: Sequence[int] = (1, 10),
  truncate_dim: int | None = None,
  embedder: Any = None,
  file: str = "search",
) -> Callable:
  """-> evaluate(params, folder=None, step=None) -> {"r1", "r10", "mrr10", "chance/r1", ...}.

  The documents are all distinct texts of the split that are no queries: those that go with one, and negatives. r10 is
  the share of distinct queries of which a right document is among the ten with the highest cosine, mrr10 the mean of 1
  over the rank of the first right one, 0 from rank 11 on. Among equal cosines wrong documents come first. Vectors are
  those of `zoo.embed`, with the prompts "query" and "document" where the model carries them. Writes `file`.json.

  Args:
    model: an encoder of texts.
    data: section of the pipeline `compared_texts`, or its records: `texts(index)`.
    batch_size: texts at a time.
    at: the numbers of first answers that count.
    truncate_dim: compare only the first entries of vectors, of a model trained so (Matryoshka).
    embedder: of `zoo.embedder`: what its folder says of how states become a vector.
    file: name of the file, without ending.
  """
  records = without_bad(records_of(data, None, "search"))
  if not hasattr(records, "texts"):
    raise UserError("search needs matching texts. Use the data pipeline compared_texts.")
  if embedder is None:
    embedder = Embedder(Path(), carried_encoder(model, Path()), model, None)
    embedder.tokenizer = tokenizer_for(model, None, "bert", "search")
  rows = [records.texts(index) for index in range(len(records))]
  queries, documents, right = gallery(rows)

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    make = copy.copy(embedder)
    make.params = params
    encoder = make.encoder
    vectors = {}
    for name, texts in (("query", queries), ("document", documents)):
      prompt = encoder.prompts.get(name, encoder.prompt)
      vectors[name] = embed(make, texts, batch_size=batch_size, unit=True, prompt=prompt, truncate_dim=truncate_dim)
    found = ranks_of(vectors["query"], vectors["document"], right)
    metrics = {f"r{k}": recall(found, k) for k in at} | {"mrr10": float(np.mean(np.where(found <= 10, 1 / found, 0)))}
    counts = np.array([len(some) for some in right])
    metrics |= {f"chance/r{k}": chance_of_counts(counts, len(documents), k) for k in at}
    if folder is not None and jax.process_index() == 0:
      sizes = {"step": step, "queries": len(queries), "documents": len(documents)}
      write_json(folder, f"{file}.json", {**sizes, **metrics})
    return metrics

  return evaluate


def gallery(rows: Sequence[Sequence[str]]) -> tuple[list[str], list[str], list[set[int]]]:
  """Distinct queries, distinct documents, and of each query the numbers of its right documents.

  >>> gallery([["a", "x", "y"], ["a", "z"], ["b", "x", ""]])
  (['a', 'b'], ['x', 'y', 'z'], [{0, 2}, {0}])
  """
  queries: dict[str, set[int]] = {}
  documents: dict[str, int] = {}
  for query, *texts in rows:
    numbers = [documents.setdefault(text, len(documents)) for text in texts if text]
    queries.setdefault(query, set()).add(numbers[0])
  return list(queries), list(documents), list(queries.values())


def ranks_of(queries: np.ndarray, documents: np.ndarray, right: Sequence[set[int]]) -> np.ndarray:
  """int [queries]: the rank of the best right document, 1 being first; memory does not grow with their product."""
  rows, parts = max(1, BLOCK // len(documents)), []
  for start in range(0, len(queries), rows):
    block = slice(start, start + rows)
    is_right = np.zeros((len(queries[block]), len(documents)), bool)
    for row, numbers in enumerate(right[block]):
      is_right[row, list(numbers)] = True
    parts.append(ranks(queries[block] @ documents.T, is_right))
  return np.concatenate(parts)
