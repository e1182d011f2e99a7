"""Search among all texts: ranks against scikit-learn's and a plain sort."""

import numpy as np
import pytest

import zoo
from tests.evaluate import hub
from zoo.evaluate.search import gallery, ranks_of


def test_ranks_are_those_of_a_sort_also_in_blocks(monkeypatch):
  rng = np.random.default_rng(0)
  queries, documents = rng.normal(size=(7, 3)), rng.normal(size=(11, 3))
  right = [set(rng.choice(11, size=1 + i % 3, replace=False).tolist()) for i in range(7)]
  order = np.argsort(-(queries @ documents.T), axis=1)
  want = [1 + min(row.tolist().index(number) for number in numbers) for row, numbers in zip(order, right)]
  assert ranks_of(queries, documents, right).tolist() == want
  monkeypatch.setattr("zoo.evaluate.search.BLOCK", 25)
  assert ranks_of(queries, documents, right).tolist() == want


def test_a_folder_is_measured_by_distinct_texts(tmp_path):
  folder = hub.bert_folder(tmp_path / "m", None)
  rng = hub.generator()
  texts = [hub.sentence(rng) for _ in range(24)]
  columns = {"query": [*texts[:11], texts[0]], "passage": texts[11:23], "negative": [texts[23]] * 12}
  source = hub.table(tmp_path / "rows.jsonl", columns)
  metrics = zoo.evaluate_model(folder, task="search", data=source, folder=tmp_path / "out")
  queries, documents, right = gallery([list(row) for row in zip(*columns.values())])
  vectors = [zoo.embed(folder, some, unit=True) for some in (queries, documents)]
  ranks = ranks_of(*vectors, right)
  assert metrics["r1"] == pytest.approx(np.mean(ranks == 1)) and (tmp_path / "out" / "search.json").exists()
  assert metrics["mrr10"] == pytest.approx(np.mean([1 / rank if rank <= 10 else 0 for rank in ranks]))
  assert metrics["chance/r1"] == pytest.approx((10 + 2) / 11 / len(documents))
