"""Task: perplexity of text."""

from collections.abc import Mapping
from typing import Any

from zoo.build import sizes_of
from zoo.evaluate.columns import TEXTS, Column
from zoo.evaluate.tasks import Subject, Task, fields

LONGEST = 2048  # Tokens per row: more need gigabytes of logits.


def _section(subject: Subject, columns: Mapping[str, str]) -> dict[str, Any]:
  tokenizer = subject.open_tokenizer()
  if memory_length := sizes_of(subject.model).get("memory_length"):
    # A segment as long as its memory, as such models are trained; rows go on, so that none forgets what it read.
    length = min(memory_length, LONGEST) + 1
    texts = {"tokenizer": subject.tokenizer_name(), "max_length": length, **fields(columns, text_field="text")}
    return {"name": "contiguous", **texts}
  length = min(subject.model.max_length or LONGEST, LONGEST) + 1  # Nothing is predicted from the last token.
  texts = {"tokenizer": subject.tokenizer_name(), "max_length": length, **fields(columns, text_field="text")}
  if not subject.published or tokenizer.bos in (None, tokenizer.eos):
    return {"name": "language", **texts}  # As in the zoo's own training.
  # A model whose texts begin with a special token has never seen a text without it.
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
