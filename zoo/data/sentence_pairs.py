"""Segment pairs for BERT's next-sentence prediction.

After `create_pretraining_data.py` of https://github.com/google-research/bert: the sentences of a document are packed
until they fill an example; a random number of them is the first segment; the second is the rest, or equally often
sentences of another document. Unlike there, the start of an example is not random, so examples are random access and
every sentence occurs in every epoch; and every example has two sentences or more, so that both cases are equally
frequent.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.data.bad_records import policy
from zoo.data.columns import TEXT, column
from zoo.data.corpus import Corpus, tokenised
from zoo.data.fields import check_fields
from zoo.data.padding import check_row, cls_and_sep
from zoo.data.pipeline import Example, Records
from zoo.data.screening import without_bad_records
from zoo.data.sources import open_source
from zoo.data.tokenizers import tokenizer as open_tokenizer
from zoo.errors import UserError

# After . ! ? and closing quotes or brackets, before a capital, a digit or an opening one; and at ends of paragraphs.
_BORDER = re.compile(r"""(?<=[.!?])["'”’)\]]*\s+(?=["'“‘(\[]*[A-Z0-9])|\n\s*\n""")


def sentence_pairs(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  tokenizer: str = "bert",
  max_length: int = 128,
  short_rate: float = 0.1,
  text_field: str | None = None,
  cache: bool = True,
  bad_records: str | Mapping = "stop",
) -> "SentencePairs":
  """Segment pairs: cls, first segment, sep, second segment, sep, padding.

  Args:
    source, split, data_dir: see `zoo.data.sources.open_source`.
    tokenizer: name or path; it must have cls (or bos) and sep (or eos).
    max_length: tokens of an example, including its three special ones.
    short_rate: share of training examples that are shortened to a random length, as in BERT.
    text_field: field of the source that holds a document; None: `text`, or another usual name in `zoo.data.columns`.
    cache: keep the tokens in the cache folder.
    bad_records: "stop" at the first one, or {"action": "skip", "most": 0.01}; see `zoo.data.bad_records`.

  Each example: `tokens` int32 [max_length]; `segments` int32 [max_length], 1 on the second segment and its sep; `valid`
  bool, False on padding; `special` bool, True on cls, sep and padding; `word_start` bool, True where a word begins;
  `is_random` int32 [], 1 if the second segment is from another document.
  `info`: source, tokenizer, vocab_size, max_length, documents, sentences.

  Raises:
    UserError: max_length is below 8, or short_rate is not from 0 to 1.
  """
  if max_length < 8:
    raise UserError(f"max_length is {max_length}. It must be at least 8: two segments and three special tokens.")
  if not 0 <= short_rate <= 1:
    raise UserError(f"short_rate is {short_rate}. It must be from 0 to 1.")
  check_row(max_length=max_length)
  rule = policy(bad_records)
  raw = open_source(source, split, data_dir)
  text_field = column(raw, "text_field", text_field, TEXT)
  raw = without_bad_records(raw, rule, text_field, cache=cache)
  check_fields(raw, text_field)
  encoder = open_tokenizer(tokenizer)
  corpus = tokenised(raw, encoder, field=text_field, pieces=sentences, cache=cache)
  records = SentencePairs(corpus, raw.name, encoder, max_length, short_rate)
  records.bad, records.policy = raw.bad, rule
  return records


def sentences(text: str) -> list[str]:
  """Splits a text into sentences, by punctuation and paragraphs."""
  cuts = [0, *(border.end() for border in _BORDER.finditer(text)), len(text)]
  return [sentence for start, end in zip(cuts, cuts[1:]) if (sentence := text[start:end].strip())]


class SentencePairs(Records):
  """See `sentence_pairs`."""

  def __init__(self, corpus: Corpus, source: str, tokenizer: Any, max_length: int, short_rate: float):
    self.tokens, self.tokenizer, self.max_length, self.short_rate = corpus.tokens, tokenizer, max_length, short_rate
    self.cls, self.sep = cls_and_sep(tokenizer)
    self.starts = np.concatenate([[0], corpus.piece_ends])  # Sentence s is tokens[starts[s] : starts[s + 1]].
    bounds = np.concatenate([[0], corpus.document_ends])
    self.documents = np.stack([bounds[:-1], bounds[1:]], axis=1)[np.diff(bounds) > 0]  # Number of their sentences.
    if len(self.documents) < 2:
      raise UserError(f"{source} holds fewer than two documents, and half of the pairs join two. Give more documents.")
    self.runs = self._runs()
    self.info = {
      "source": source,
      "tokenizer": tokenizer,
      "vocab_size": tokenizer.vocab_size,
      "max_length": max_length,
      "documents": len(self.documents),
      "sentences": len(corpus.piece_ends),
    }

  def __len__(self) -> int:
    return len(self.runs)

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    short = rng is not None and rng.random() < self.short_rate
    rng = rng or np.random.default_rng(index)  # Evaluation is random too, but the same every time.
    budget = int(rng.integers(2, self.max_length - 2)) if short else self.max_length - 3
    document, begin, end = self.runs[index]
    cut = rng.integers(begin + 1, end)
    is_random = rng.random() < 0.5
    first = self._sentences(begin, cut)
    second = self._elsewhere(document, budget - len(first), rng) if is_random else self._sentences(cut, end)
    first, second = _truncated(first, second, budget, rng)
    return self._packed(first, second) | {"is_random": np.asarray(is_random, np.int32)}

  def _runs(self) -> np.ndarray:
    """Runs of at least two sentences that fill an example: int [examples, 3]: document, first sentence, end."""
    runs = []
    for document, (begin, end) in enumerate(self.documents.tolist()):
      first = begin
      for sentence in range(begin, end):
        full = self.starts[sentence + 1] - self.starts[first] >= self.max_length - 3
        if sentence > first and (full or sentence == end - 1):
          runs.append((document, first, sentence + 1))
          first = sentence + 1
      if first == end - 1 and end - begin > 1:
        runs.append((document, end - 2, end))  # A single remaining sentence is merged with the previous run.
    if not runs:
      raise UserError("No document has two sentences. Give longer documents.")
    return np.array(runs)

  def _sentences(self, begin: int, end: int) -> np.ndarray:
    return self.tokens[self.starts[begin] : self.starts[end]]

  def _elsewhere(self, document: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Consecutive sentences of another document from a random one on, with at least `length` tokens."""
    other = rng.integers(len(self.documents) - 1)
    begin, end = self.documents[other + (other >= document)]
    begin = rng.integers(begin, end)
    enough = int(np.searchsorted(self.starts, self.starts[begin] + length))
    return self._sentences(begin, min(max(enough, begin + 1), end))

  def _packed(self, first: np.ndarray, second: np.ndarray) -> Example:
    tokens = np.full(self.max_length, self.tokenizer.pad or 0, np.int32)
    middle, end = len(first) + 1, len(first) + len(second) + 2  # Positions of the two seps.
    tokens[0], tokens[middle], tokens[end] = self.cls, self.sep, self.sep
    tokens[1:middle], tokens[middle + 1 : end] = first, second
    positions = np.arange(self.max_length)
    return {
      "tokens": tokens,
      "segments": ((positions > middle) & (positions <= end)).astype(np.int32),
      "valid": positions <= end,
      "special": (positions == 0) | (positions == middle) | (positions >= end),
      "word_start": self.tokenizer.word_starts(tokens),
    }


def _truncated(
  first: np.ndarray, second: np.ndarray, budget: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Drops tokens of the longer segment, at its front or its end at random, until both have `budget`. As BERT's
  `truncate_seq_pair`, in one step."""
  keep = min(len(first), max(budget - len(second), (budget + 1) // 2))
  lengths = (keep, min(len(second), budget - keep))
  fronts = [rng.binomial(len(part) - length, 0.5) for part, length in zip((first, second), lengths)]
  return first[fronts[0] : fronts[0] + lengths[0]], second[fronts[1] : fronts[1] + lengths[1]]
