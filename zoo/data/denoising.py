"""BART's denoising: sentences are shuffled and spans masked, and the model reconstructs the text.

https://arxiv.org/abs/1910.13461, section 2.2. Tokens are masked, not full words.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.data.bad_records import policy
from zoo.data.columns import TEXT, column
from zoo.data.corpus import Corpus, tokenised
from zoo.data.corruption import infilled, shuffled
from zoo.data.fields import check_fields
from zoo.data.padding import check_row, end_token, padded_pair
from zoo.data.pipeline import Example, Records
from zoo.data.screening import without_bad_records
from zoo.data.sentence_pairs import sentences
from zoo.data.sources import open_source
from zoo.data.tokenizers import tokenizer as open_tokenizer
from zoo.errors import UserError


def denoising(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  tokenizer: str = "sotu",
  max_length: int = 512,
  rate: float = 0.3,
  mean_span: float = 3.0,
  permute: bool = True,
  text_field: str | None = None,
  cache: bool = True,
  bad_records: str | Mapping = "stop",
) -> "Denoising":
  """Runs of full sentences of a document, corrupted as source and original as target, both as `bos text eos`.

  Args:
    source, split, data_dir: see `zoo.data.sources.open_source`.
    tokenizer: name or path; it needs a mask.
    max_length: tokens of either text with bos (or cls) and eos (or sep). Longer sentences are cut.
    rate: share of the tokens that is dropped.
    mean_span: mean of the Poisson distribution of span lengths; each span becomes one mask.
    permute: whether sentences are shuffled.
    text_field: field of the source that holds a document; None: `text`, or another usual name in `zoo.data.columns`.
    cache: keep the tokens in the cache folder.
    bad_records: "stop" at the first one, or {"action": "skip", "most": 0.01}; see `zoo.data.bad_records`.

  Each example: `tokens` int32 [max_length], `valid` bool [max_length], `target_tokens` int32 [max_length],
  `target_valid` bool [max_length]. Noise changes from epoch to epoch; in evaluation it is always the same. `info`:
  source, tokenizer, vocab_size, max_length, target_length.

  Raises:
    UserError: rate, mean_span or max_length is out of range, or the tokenizer has no mask token.
  """
  if not 0 <= rate < 1 or mean_span <= 0:
    raise UserError(f"rate is {rate}, mean_span {mean_span}. rate must be at least 0 and below 1, mean_span above 0.")
  if max_length < 4:
    raise UserError(f"max_length is {max_length}. It must be at least 4: bos, two tokens, eos.")
  check_row(max_length=max_length)
  rule = policy(bad_records)
  raw = open_source(source, split, data_dir)
  text_field = column(raw, "text_field", text_field, TEXT)
  raw = without_bad_records(raw, rule, text_field, cache=cache)
  check_fields(raw, text_field)
  encoder = open_tokenizer(tokenizer)
  if encoder.mask is None:
    raise UserError(f"Tokenizer '{encoder}' has no mask token. Choose another, e.g. sotu.")
  corpus = tokenised(raw, encoder, field=text_field, pieces=sentences, cache=cache)
  records = Denoising(corpus, raw.name, encoder, max_length, (rate, mean_span), permute)
  records.bad, records.policy = raw.bad, rule
  return records


class Denoising(Records):
  """See `denoising`."""

  def __init__(
    self, corpus: Corpus, source: str, tokenizer: Any, max_length: int, noise: tuple[float, float], permute: bool
  ):
    self.corpus, self.tokenizer, self.max_length = corpus, tokenizer, max_length
    self.noise, self.permute = noise, permute
    end, begin = end_token(tokenizer), tokenizer.bos if tokenizer.bos is not None else tokenizer.cls
    self.frame = ([] if begin in (None, end) else [begin]), [end]
    self.room = max_length - len(self.frame[0]) - 1
    self.starts = np.concatenate([[0], corpus.piece_ends])  # Sentence s is tokens[starts[s] : starts[s + 1]].
    self.runs = self._runs()
    self.info = {
      "source": source,
      "tokenizer": tokenizer,
      "vocab_size": tokenizer.vocab_size,
      "max_length": max_length,
      "target_length": max_length,
    }

  def __len__(self) -> int:
    return len(self.runs)

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    rng = rng or np.random.default_rng(index)
    begin, end = self.runs[index]
    clean = [self.corpus.tokens[self.starts[s] : self.starts[s + 1]] for s in range(begin, end)]
    if len(clean) == 1:
      clean = [clean[0][: self.room]]
    noisy = shuffled(clean, rng) if self.permute else np.concatenate(clean)
    noisy = infilled(noisy, self.tokenizer.mask, *self.noise, rng)[: self.room]  # Masks of empty spans may exceed it.
    framed = (np.concatenate([self.frame[0], tokens, self.frame[1]]) for tokens in (noisy, np.concatenate(clean)))
    return padded_pair(*framed, self.max_length, self.max_length, self.tokenizer.pad or 0)

  def _runs(self) -> np.ndarray:
    """int [examples, 2], first sentence and end: as many sentences of a document as fit."""
    runs, first = [], 0
    for end in self.corpus.document_ends.tolist():
      while first < end:
        last = int(np.searchsorted(self.starts, self.starts[first] + self.room, side="right")) - 1
        last = min(max(last, first + 1), end)
        runs.append((first, last))
        first = last
    return np.array(runs)
