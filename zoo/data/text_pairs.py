"""Source-target text pairs: batches of `tokens`, `valid`, `target_tokens`, `target_valid`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.data.bad_records import policy
from zoo.data.columns import SEQUENCES, pair_of_columns
from zoo.data.corpus import Corpus, tokenised
from zoo.data.fields import check_fields, texts_of
from zoo.data.padding import buckets as make_buckets
from zoo.data.padding import check_row, end_token
from zoo.data.padding import padded_pair as padded_pair
from zoo.data.pipeline import Example, Records
from zoo.data.screening import without_bad_records
from zoo.data.sources import Source, open_source
from zoo.data.tokenizers import tokenizer as open_tokenizer
from zoo.errors import UserError


def text_pairs(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  tokenizer: str = "sotu",
  max_length: int = 128,
  target_length: int | None = None,
  source_field: str | None = None,
  target_field: str | None = None,
  prefix: str = "",
  buckets: int = 4,
  cache: bool = True,
  bad_records: str | Mapping = "stop",
) -> "TextPairs":
  """Source and target texts, each closed by the tokenizer's eos; longer ones are truncated before it.

  Args:
    source, split, data_dir: see `zoo.data.sources.open_source`.
    tokenizer: name or path.
    max_length, target_length: maximum tokens of a source and of a target; target_length defaults to max_length.
    source_field, target_field: fields of the two texts; None: `source` and `target`, or other usual names
      (`zoo.data.columns`).
    prefix: prepended to every source text, e.g. "summarize: " for a multi-task model.
    buckets: number of lengths that a batch may have; see `zoo.data.padding`. A program is compiled for each.
    cache: keep the tokens in the cache folder.
    bad_records: "stop" at the first one, or {"action": "skip", "most": 0.01}; see `zoo.data.bad_records`.

  Each example: `tokens` int32 [max_length], `valid` bool [max_length], `target_tokens` int32 [target_length],
  `target_valid` bool [target_length]; batches may be shorter. `info`: source, tokenizer, vocab_size, max_length,
  target_length.

  Raises:
    UserError: max_length or target_length is below 2.
  """
  target_length = max_length if target_length is None else target_length
  if min(max_length, target_length) < 2:
    raise UserError(
      f"max_length is {max_length}, target_length {target_length}. Both must be at least 2: a token and the end."
    )
  check_row(max_length=max_length, target_length=target_length)
  rule = policy(bad_records)
  raw, names = open_source(source, split, data_dir), ("source_field", "target_field")
  pair = pair_of_columns(raw, names, (source_field, target_field), SEQUENCES)
  source_field, target_field = pair or (source_field or "source", target_field or "target")
  raw = without_bad_records(raw, rule, source_field, target_field, cache=cache)
  check_fields(raw, source_field, target_field)
  encoder = open_tokenizer(tokenizer)
  corpora = (
    tokenised(Prefixed(raw, source_field, prefix) if prefix else raw, encoder, field=source_field, cache=cache),
    tokenised(raw, encoder, field=target_field, cache=cache),
  )
  records = TextPairs(raw, (source_field, target_field), corpora, encoder, (max_length, target_length), buckets)
  records.bad, records.policy = raw.bad, rule
  return records


class Prefixed(Source):
  """A source that prepends `prefix` to one field."""

  def __init__(self, source: Source, field: str, prefix: str):
    self.source, self.field, self.prefix = source, field, prefix
    self.name, self.class_names = source.name, source.class_names
    self.fingerprint = None if source.fingerprint is None else f"{source.fingerprint} {prefix}"

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    raw = self.source[index]
    if self.field not in raw:
      return raw
    texts = texts_of(raw[self.field], f"{self.where(index)}: {self.field}")
    return {**raw, self.field: self.prefix + "\n\n".join(texts)}

  def where(self, index: int) -> str:
    return self.source.where(index)


class TextPairs(Records):
  """See `text_pairs`."""

  def __init__(
    self,
    source: Source,
    fields: tuple[str, str],
    corpora: tuple[Corpus, Corpus],
    tokenizer: Any,
    lengths: tuple[int, int],
    buckets: int,
  ):
    self.source, self.fields, self.corpora, self.lengths = source, fields, corpora, lengths
    self.eos, self.pad = end_token(tokenizer), tokenizer.pad or 0
    source_sizes, target_sizes = (
      np.minimum(np.diff(corpus.piece_ends, prepend=0) + 1, length) for corpus, length in zip(corpora, lengths)
    )
    self.sizes = source_sizes, target_sizes
    self.buckets = make_buckets(*self.sizes, *lengths, buckets)
    self.info = {
      "source": source.name,
      "tokenizer": tokenizer,
      "vocab_size": tokenizer.vocab_size,
      "max_length": lengths[0],
      "target_length": lengths[1],
    }

  def __len__(self) -> int:
    return len(self.source)

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    rows = [self._encoded(corpus, index, length) for corpus, length in zip(self.corpora, self.lengths)]
    return padded_pair(*rows, *self.lengths, self.pad)

  def texts(self, index: int) -> tuple[str, str]:
    """Source and target of a record as strings, without prefix."""
    raw = self.source[index]
    source, target = ("\n\n".join(texts_of(raw[field], f"{self.source.name}: {field}")) for field in self.fields)
    return source, target

  def _encoded(self, corpus: Corpus, index: int, length: int) -> np.ndarray:
    if not 0 <= index < len(self):
      raise IndexError(f"There are {len(self)} pairs; index {index} is out of range.")
    start = int(corpus.piece_ends[index - 1]) if index else 0
    end = min(int(corpus.piece_ends[index]), start + length - 1)
    return np.append(corpus.tokens[start:end].astype(np.int32), np.int32(self.eos))
