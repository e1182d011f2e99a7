"""Finding the text that goes with another among all: an answer to a question, a passage about a title."""

from collections.abc import Mapping
from typing import Any

from zoo.evaluate.columns import Column
from zoo.evaluate.tasks import Subject, Task, fields
from zoo.evaluate.tasks.similarity import similarity

_NUMBERED = tuple("+".join(f"negative_{n + 1}" for n in range(count)) for count in range(10, 0, -1))


def _section(subject: Subject, columns: Mapping[str, str]) -> dict[str, Any]:
  negatives = columns.get("negatives", "").split("+")
  return {
    "name": "compared_texts",
    "tokenizer": subject.tokenizer_name(),
    "max_length": subject.text_length(),
    **fields(columns, text_field="text", pair_field="pair"),
    **({"negatives_field": negatives if len(negatives) > 1 else negatives[0]} if negatives[0] else {}),
  }


search = Task(
  does="finding the text that goes with another among all texts, by the cosine of their vectors",
  needs=similarity.needs,
  fits=similarity.fits,
  columns={
    "text": Column(
      ("anchor", "query", "question", "sentence1", "text1", "premise", "title", "source", "text"),
      "a text",
      reads="texts",
    ),
    "pair": Column(
      (
        *("positive", "passage", "document", "answer", "context", "sentence2", "text2", "hypothesis", "sentence"),
        *("target", "abstract", "text_pair", "body"),
      ),
      "the text that goes with it",
      reads="texts",
    ),
    "negatives": Column(
      ("negative", "negatives", "hard_negative", "hard_negatives", *_NUMBERED),
      "texts that do not go with it: a text, a list of texts, or a field for each, with + between them",
      needed=False,
      reads="texts",
    ),
  },
  evaluator="search",
  section=_section,
  metrics="r1, r10, mrr10; row chance",
  opens=similarity.opens,
)
