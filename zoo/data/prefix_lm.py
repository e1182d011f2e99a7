"""Prefix language modelling: the model reads a prefix and predicts the rest (https://arxiv.org/abs/1910.10683, 3.3)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.data.bad_records import policy
from zoo.data.columns import TEXT, column
from zoo.data.corpus import Chunks, tokenised
from zoo.data.fields import check_fields
from zoo.data.padding import check_row, end_token, padded_pair
from zoo.data.pipeline import Example, Records
from zoo.data.screening import without_bad_records
from zoo.data.sources import open_source
from zoo.data.tokenizers import tokenizer as open_tokenizer
from zoo.errors import UserError


def prefix_lm(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  tokenizer: str = "sotu",
  max_length: int = 512,
  text_field: str | None = None,
  cache: bool = True,
  bad_records: str | Mapping = "stop",
) -> "PrefixLM":
  """Chunks of `max_length` tokens split at a random position into prefix and target, each closed by eos.

  Args:
    source, split, data_dir: see `zoo.data.sources.open_source`.
    tokenizer: name or path.
    max_length: tokens of a chunk, and the padded length of either part.
    text_field: field of the source that holds the text; None: `text`, or another usual name in `zoo.data.columns`.
    cache: keep the tokens in the cache folder.
    bad_records: "stop" at the first one, or {"action": "skip", "most": 0.01}; see `zoo.data.bad_records`.

  Each example: `tokens` int32 [max_length], `valid` bool [max_length], `target_tokens` int32 [max_length],
  `target_valid` bool [max_length]. In evaluation the position is fixed for each chunk. `info`: source, tokenizer,
  vocab_size, max_length, target_length.

  Raises:
    UserError: max_length is below 2.
  """
  if max_length < 2:
    raise UserError(f"max_length is {max_length}. It must be at least 2: a prefix and a target.")
  check_row(max_length=max_length)
  rule = policy(bad_records)
  raw = open_source(source, split, data_dir)
  text_field = column(raw, "text_field", text_field, TEXT)
  raw = without_bad_records(raw, rule, text_field, cache=cache)
  check_fields(raw, text_field)
  encoder = open_tokenizer(tokenizer)
  records = PrefixLM(
    Chunks(tokenised(raw, encoder, field=text_field, cache=cache), max_length, raw.name), raw.name, encoder
  )
  records.bad, records.policy = raw.bad, rule
  return records


class PrefixLM(Records):
  """See `prefix_lm`."""

  def __init__(self, chunks: Chunks, source: str, tokenizer: Any):
    self.chunks, self.eos, self.pad = chunks, end_token(tokenizer), tokenizer.pad or 0
    self.info = {
      "source": source,
      "tokenizer": tokenizer,
      "vocab_size": tokenizer.vocab_size,
      "max_length": chunks.length,
      "target_length": chunks.length,
    }

  def __len__(self) -> int:
    return len(self.chunks)

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    tokens = self.chunks[index]
    cut = (rng or np.random.default_rng(index)).integers(1, len(tokens))
    parts = (np.append(part, self.eos) for part in (tokens[:cut], tokens[cut:]))
    return padded_pair(*parts, self.chunks.length, self.chunks.length, self.pad)
