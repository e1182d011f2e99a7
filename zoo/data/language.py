"""Text in chunks of one length, for causal language models: batches of `tokens`, `valid`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.data.bad_records import policy
from zoo.data.columns import TEXT, column
from zoo.data.corpus import Corpus, tokenised
from zoo.data.fields import check_fields
from zoo.data.padding import check_row
from zoo.data.pipeline import Example, Records
from zoo.data.screening import without_bad_records
from zoo.data.sources import open_source
from zoo.data.tokenizers import tokenizer as open_tokenizer
from zoo.errors import UserError


def language(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  tokenizer: str = "gpt2",
  max_length: int = 1024,
  text_field: str | None = None,
  cache: bool = True,
  bad_records: str | Mapping = "stop",
) -> "Language":
  """Chunks of the stream `eos document eos document eos ...`.

  A chunk begins with the last token of the previous one, so that next-token prediction over all chunks predicts
  every token after the first eos exactly once. Bits per byte are then exact: the loss in nats summed over all chunks,
  divided by `log(2) * info["bytes"]`; or the mean loss per token times `info["tokens"] / (log(2) * info["bytes"])`.

  Args:
    source, split, data_dir: see `zoo.data.sources.open_source`.
    tokenizer: name or path.
    max_length: tokens of a chunk.
    text_field: field of the source that holds the text; None: `text`, or another usual name in `zoo.data.columns`.
    cache: keep the tokens in the cache folder (`$ZOO_CACHE`, by default ~/.cache/zoo).
    bad_records: "stop" at the first one, or {"action": "skip", "most": 0.01}; see `zoo.data.bad_records`.

  Each example: `tokens` int32 [max_length], `valid` bool [max_length], False where the last chunk is padded. `info`:
  source, tokenizer, vocab_size, max_length, documents, tokens (that are predicted: text and each closing eos), bytes.

  Raises:
    UserError: max_length is below 2, or the tokenizer has no end-of-text token.
  """
  if max_length < 2:
    raise UserError(f"max_length is {max_length}. It must be at least 2: one input token and one target.")
  check_row(max_length=max_length)
  rule = policy(bad_records)
  raw = open_source(source, split, data_dir)
  text_field = column(raw, "text_field", text_field, TEXT)
  raw = without_bad_records(raw, rule, text_field, cache=cache)
  check_fields(raw, text_field)
  encoder = open_tokenizer(tokenizer)
  if encoder.eos is None and encoder.sep is None:
    raise UserError(f"Tokenizer '{tokenizer}' has no end-of-text token (eos or sep). Choose another, e.g. gpt2.")
  corpus = tokenised(raw, encoder, field=text_field, cache=cache)
  records = Language(corpus, raw.name, encoder, max_length)
  records.bad, records.policy = raw.bad, rule
  return records


class Language(Records):
  """See `language`."""

  def __init__(self, corpus: Corpus, source: str, tokenizer: Any, max_length: int):
    self.corpus, self.max_length = corpus, max_length
    self.eos = tokenizer.eos if tokenizer.eos is not None else tokenizer.sep
    self.pad = tokenizer.pad or 0
    # Position of each document's closing eos in the stream, which starts with one eos.
    self.closings = corpus.piece_ends + np.arange(1, len(corpus.piece_ends) + 1)
    self.info = {
      "source": source,
      "tokenizer": tokenizer,
      "vocab_size": tokenizer.vocab_size,
      "max_length": max_length,
      "documents": len(corpus.document_ends),
      "tokens": int(self.closings[-1]),
      "bytes": corpus.num_bytes,
    }

  def __len__(self) -> int:
    return -(-self.info["tokens"] // (self.max_length - 1))

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    if not 0 <= index < len(self):
      raise IndexError(f"There are {len(self)} chunks; index {index} is out of range.")
    first = index * (self.max_length - 1)
    positions = np.arange(first, first + self.max_length)
    valid = positions <= self.info["tokens"]
    positions = np.minimum(positions, self.info["tokens"])
    document = np.searchsorted(self.closings, positions)  # How many documents have closed before this position.
    is_eos = (positions == 0) | (self.closings[document] == positions)
    text = self.corpus.tokens[np.minimum(positions - 1 - document, len(self.corpus.tokens) - 1)].astype(np.int32)
    tokens = np.where(is_eos, self.eos, text)
    return {"tokens": np.where(valid, tokens, self.pad).astype(np.int32), "valid": valid}
