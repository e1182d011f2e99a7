"""Task: semantic similarity of texts, by the cosine of their embeddings."""

from collections.abc import Mapping
from typing import Any

from zoo.embed import embedder
from zoo.errors import UserError
from zoo.evaluate.columns import PAIR, SCORE, TEXT
from zoo.evaluate.tasks import Opened, Task, fields


def _open(folder: Any, loading: Mapping[str, Any]) -> Opened:
  """Opens the encoder in a folder, with the pooling of its files."""
  if loading.get("head") is not None:
    raise UserError("similarity loads the encoder alone. Leave out head.")
  opened = embedder(folder, dtype=loading.get("dtype"), ignore=loading.get("ignore", ()))
  return Opened(opened.model, opened.params, {"embedder": opened})


similarity = Task(
  does="how alike two texts are, by the cosine of their vectors",
  needs="an encoder of texts",
  fits=lambda kind: "texts" in kind.reads and kind.does in ("encode", "compare", "masked_token"),
  columns={"text": TEXT, "pair": PAIR._replace(needed=True), "score": SCORE},
  evaluator="similarity",
  section=lambda subject, columns: {
    "name": "scored_pairs",
    **fields(columns, text_field="text", pair_field="pair", score_field="score"),
  },
  metrics="spearman, pearson",
  opens=_open,
)
