"""Documents of varying length, one per example, for `packed` to pack: `tokens`, `valid`."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from zoo.data.bad_records import policy
from zoo.data.columns import TEXT, column
from zoo.data.corpus import Corpus, tokenised
from zoo.data.fields import check_fields
from zoo.data.padding import check_row, cls_and_sep, end_token
from zoo.data.pipeline import Example, Records
from zoo.data.screening import without_bad_records
from zoo.data.sentence_pairs import sentences
from zoo.data.sources import open_source
from zoo.data.tokenizers import tokenizer as open_tokenizer
from zoo.errors import UserError

LEARNS = ("next", "masked")
LONG = ("split", "crop")


def paragraphs(text: str) -> list[str]:
  """The paragraphs of a text, as separated by blank lines."""
  return [paragraph for part in re.split(r"\n\s*\n", text) if (paragraph := part.strip())]


UNITS: dict[str, Callable[[str], list[str]] | None] = {
  "document": None,
  "paragraph": paragraphs,
  "sentence": sentences,
}


def documents(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  tokenizer: str = "sotu",
  max_length: int = 512,
  learns: str = "next",
  unit: str = "document",
  long: str = "split",
  text_field: str | None = None,
  cache: bool = True,
  bad_records: str | Mapping = "stop",
) -> "Documents":
  """Texts of varying length as independent training examples.

      {"name": "packed", "max_length": 512, "data": {"name": "documents", "source": "tfds:sotu", "unit": "paragraph"}}

  Args:
    source, split, data_dir: see `zoo.data.sources.open_source`.
    tokenizer: name or path.
    max_length: maximum tokens of a text.
    learns: "next": texts are `begin text end`, for causal_lm; "masked": `cls text sep`, for masked_lm.
    unit: unit of a text: a full "document", a "paragraph" or a "sentence".
    long: treatment of texts of more than max_length tokens. "split": into several. With learns "next" each
      begins with the last token of the previous one, so that every token is predicted once; with "masked" each has
      its own cls and sep. "crop": the rest is dropped, and counted in `info`.
    text_field: field of the source that holds a document; None: `text`, or another usual name in `zoo.data.columns`.
    cache: keep the tokens in the cache folder.
    bad_records: "stop" at the first one, or {"action": "skip", "most": 0.01}; see `zoo.data.bad_records`.

  Each example: `tokens` int32 [max_length], `valid` bool [max_length], False on padding; with "masked" also `special`
    bool,
  True on cls, sep and padding, and `word_start` bool, True where a word begins. `info`: source, tokenizer, vocab_size,
  max_length, documents, texts (examples), cropped (dropped tokens); bytes, if none are dropped;
  with "next" also tokens (that are predicted).

  Raises:
    UserError: max_length is below 3, or an option is none of those offered.
  """
  for name, value, offered in (("learns", learns, LEARNS), ("unit", unit, tuple(UNITS)), ("long", long, LONG)):
    if value not in offered:
      raise UserError(f"documents.{name} is '{value}'. It may be: {', '.join(offered)}.")
  if max_length < 3:
    raise UserError(f"max_length is {max_length}. It must be at least 3: a first, a middle and an end token.")
  check_row(max_length=max_length)
  rule = policy(bad_records)
  raw = open_source(source, split, data_dir)
  text_field = column(raw, "text_field", text_field, TEXT)
  raw = without_bad_records(raw, rule, text_field, cache=cache)
  check_fields(raw, text_field)
  encoder = open_tokenizer(tokenizer)
  corpus = tokenised(raw, encoder, field=text_field, pieces=UNITS[unit], cache=cache)
  records = Documents(corpus, raw.name, encoder, max_length, learns == "masked", long == "crop")
  records.bad, records.policy = raw.bad, rule
  return records


class Documents(Records):
  """See `documents`."""

  def __init__(self, corpus: Corpus, source: str, tokenizer: Any, max_length: int, masked: bool, crop: bool):
    self.corpus, self.tokenizer, self.max_length, self.masked = corpus, tokenizer, max_length, masked
    self.begin, self.end = _begin_and_end(tokenizer, masked)
    texts = np.diff(corpus.piece_ends, prepend=0)
    # A piece advances by the tokens of `begin text end` that it does not share with the next.
    self.step = max_length - (2 if masked else 1)
    # With "next" the last token of a piece is in the next one too; the final end is predicted like any other.
    pieces = np.maximum(-(-(texts if masked else texts + 1) // self.step), 1)
    pieces = np.minimum(pieces, 1) if crop else pieces
    self.text = np.repeat(np.arange(len(texts)), pieces)
    self.piece = np.arange(len(self.text)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    remaining = texts[self.text] - self.piece * self.step
    self.lengths = np.minimum(remaining + 2, max_length)
    self.sizes = (self.lengths,)
    num_kept = int(np.minimum(texts, self.step).sum()) if crop else int(texts.sum())
    self.info = {
      "source": source,
      "tokenizer": tokenizer,
      "vocab_size": tokenizer.vocab_size,
      "max_length": max_length,
      "documents": len(corpus.document_ends),
      "texts": len(self.text),
      "cropped": int(texts.sum()) - num_kept,
    }
    if num_kept == texts.sum() and len(corpus.piece_ends) == len(corpus.document_ends):
      self.info["bytes"] = corpus.num_bytes
    if not masked:
      self.info["tokens"] = int((self.lengths - 1).sum())

  def __len__(self) -> int:
    return len(self.text)

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    if not 0 <= index < len(self):
      raise IndexError(f"There are {len(self)} documents; index {index} is out of range.")
    text, first = int(self.text[index]), int(self.piece[index]) * self.step
    start, stop = int(self.corpus.piece_ends[text - 1]) if text else 0, int(self.corpus.piece_ends[text])
    size = int(self.lengths[index])
    begins, ends = self.masked or first == 0, self.masked or first + size == stop - start + 2
    start += first if begins else first - 1
    words = self.corpus.tokens[start : start + size - begins - ends]
    tokens = np.full(self.max_length, self.tokenizer.pad or 0, np.int32)
    tokens[:size] = np.concatenate([[self.begin] * begins, words, [self.end] * ends])
    example = {"tokens": tokens, "valid": np.arange(self.max_length) < size}
    if self.masked:
      positions = np.arange(self.max_length)
      example |= {
        "special": (positions == 0) | (positions >= size - 1),
        "word_start": self.tokenizer.word_starts(tokens),
      }
    return example


def _begin_and_end(tokenizer: Any, masked: bool) -> tuple[int, int]:
  """The ids of the tokens that begin and end a text."""
  if masked:
    return cls_and_sep(tokenizer)
  end = end_token(tokenizer)
  return (end if tokenizer.bos is None else tokenizer.bos), end
