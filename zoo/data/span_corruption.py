"""T5's span corruption: the model predicts dropped spans of a text (https://arxiv.org/abs/1910.10683, section 3.1.4).

T5 1.1 has the same noise; it differs in the model (gated, with an untied output layer) and in pretraining without
dropout on this alone, not in a mixture with tasks.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.data.bad_records import policy
from zoo.data.columns import TEXT, column
from zoo.data.corpus import Chunks, tokenised
from zoo.data.corruption import noise_mask, span_lengths, with_sentinels
from zoo.data.fields import check_fields
from zoo.data.padding import check_row, end_token, padded_pair
from zoo.data.pipeline import Example, Records
from zoo.data.screening import without_bad_records
from zoo.data.sources import open_source
from zoo.data.tokenizers import tokenizer as open_tokenizer
from zoo.errors import UserError

SENTINELS = 100


def span_corruption(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  tokenizer: str = "sotu",
  max_length: int = 512,
  rate: float = 0.15,
  mean_span: float = 3.0,
  closing: bool = False,
  text_field: str | None = None,
  cache: bool = True,
  bad_records: str | Mapping = "stop",
) -> "SpanCorruption":
  """Chunks of text with sentinels in place of dropped spans; targets are the sentinels, each followed by its span.

      Thank you for inviting me to your party last week.
      tokens   Thank you <0> me to your party <1> week . eos
      targets  <0> for inviting <1> last eos

  Args:
    source, split, data_dir: see `zoo.data.sources.open_source`.
    tokenizer: name or path. Sentinels are its <extra_id_0>, <extra_id_1> ..., if it has them; else 100 ids after its
      vocabulary, in decreasing order, as in T5.
    max_length: input tokens, including eos. This determines the length of targets; nothing is padded.
    rate: share of the tokens that is dropped.
    mean_span: mean length of dropped spans.
    closing: whether one more sentinel precedes the target's eos, as in figure 2 of the paper. The code of T5 and
      of T5 1.1 has none.
    text_field: field of the source that holds the text; None: `text`, or another usual name in `zoo.data.columns`.
    cache: keep the tokens in the cache folder.
    bad_records: "stop" at the first one, or {"action": "skip", "most": 0.01}; see `zoo.data.bad_records`.

  Each example: `tokens` int32 [max_length], `valid`, `target_tokens` int32 [target length], `target_valid`. Dropped
  spans change from epoch to epoch; in evaluation they are fixed. `info`: source, tokenizer, vocab_size
  (sentinels counted), max_length, target_length, first_sentinel.

  Raises:
    UserError: rate, mean_span or max_length is out of range, or there are more spans than sentinels.
  """
  if not 0 < rate < 1 or mean_span < 1:
    raise UserError(f"rate is {rate}, mean_span {mean_span}. rate must be between 0 and 1, mean_span 1 or more.")
  check_row(max_length=max_length)
  size, target_length = span_lengths(max_length, rate, mean_span) if max_length > 3 else (0, 0)
  if size < 2:
    raise UserError(f"max_length is {max_length}. It must be at least 4: a kept token, a sentinel and the end.")
  spans = max(round(round(size * rate) / mean_span), 1)
  if spans + closing > SENTINELS:
    raise UserError(f"{spans} spans need as many sentinels, but there are {SENTINELS}. Lower max_length or rate.")
  rule = policy(bad_records)
  raw = open_source(source, split, data_dir)
  text_field = column(raw, "text_field", text_field, TEXT)
  raw = without_bad_records(raw, rule, text_field, cache=cache)
  check_fields(raw, text_field)
  encoder = open_tokenizer(tokenizer)
  chunks = Chunks(tokenised(raw, encoder, field=text_field, cache=cache), size, raw.name)
  records = SpanCorruption(chunks, raw.name, encoder, (max_length, target_length + closing), (rate, mean_span), closing)
  records.bad, records.policy = raw.bad, rule
  return records


class SpanCorruption(Records):
  """See `span_corruption`."""

  def __init__(
    self,
    chunks: Chunks,
    source: str,
    tokenizer: Any,
    lengths: tuple[int, int],
    noise: tuple[float, float],
    closing: bool,
  ):
    self.chunks, self.lengths, self.noise, self.closing = chunks, lengths, noise, closing
    self.eos, self.pad = end_token(tokenizer), tokenizer.pad or 0
    sentinel = tokenizer.backend.token_to_id("<extra_id_0>") if hasattr(tokenizer, "backend") else None
    self.first_sentinel = tokenizer.vocab_size + SENTINELS - 1 if sentinel is None else sentinel
    self.info = {
      "source": source,
      "tokenizer": tokenizer,
      "vocab_size": max(tokenizer.vocab_size, self.first_sentinel + 1),
      "max_length": lengths[0],
      "target_length": lengths[1],
      "first_sentinel": self.first_sentinel,
    }

  def __len__(self) -> int:
    return len(self.chunks)

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    tokens = self.chunks[index]
    is_noise = noise_mask(len(tokens), *self.noise, rng or np.random.default_rng(index))
    source, target = (with_sentinels(tokens, mask, self.first_sentinel) for mask in (is_noise, ~is_noise))
    closing = [self.first_sentinel - (target > self.first_sentinel - SENTINELS).sum()] if self.closing else []
    return padded_pair(
      np.append(source, self.eos), np.concatenate([target, closing, [self.eos]]), *self.lengths, self.pad
    )
