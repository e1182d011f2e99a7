"""Perplexity of running text."""

from collections.abc import Mapping
from typing import Any

from zoo.evaluate.columns import TEXTS, Column
from zoo.evaluate.tasks import Subject, Task, fields

LONGEST = 2048  # Tokens that are seen at once: more take logits of gigabytes.


def _section(subject: Subject, columns: Mapping[str, str]) -> dict[str, Any]:
  tokenizer = subject.open_tokenizer()
  length = min(subject.model.max_length or LONGEST, LONGEST) + 1  # Of the last token nothing is predicted.
  texts = {"tokenizer": subject.tokenizer_name(), "max_length": length, **fields(columns, text_field="text")}
  if not subject.published or tokenizer.bos in (None, tokenizer.eos):
    return {"name": "language", **texts}  # As the zoo trains its own, too.
  # A model whose texts begin with a token of its own has never seen a text without it.
  return {"name": "packed", "max_length": length, "data": {"name": "documents", **texts}}


perplexity = Task(
  does="how likely a text is to a language model",
  needs="a model that continues texts",
  fits=lambda kind: kind.does == "next_token",
  columns={"text": Column(TEXTS, "a document")},
  evaluator="perplexity",
  section=_section,
  metrics="loss (nats per token), perplexity, bits_per_byte, tokens",
)
