"""Source-target pairs in the format of a published encoder-decoder: `tokens`, `target_tokens`, with validity."""

from collections.abc import Mapping

import numpy as np

from zoo.data.pipeline import Example
from zoo.data.prompts import Prompts, open_prompts


def framed_pairs(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  tokenizer: str = "bert",
  max_length: int = 512,
  target_length: int = 128,
  source_field: str = "source",
  target_field: str = "target",
  prefix: str = "",
  bad_records: str | Mapping = "stop",
) -> "FramedPairs":
  """Source-target pairs with the model's special tokens: BART's `<s> ... </s>`, T5's `</s>`.

  Args:
    source, split, data_dir: see `zoo.data.sources.open_source`.
    tokenizer: name, or path of a tokenizer.json or of a published model's folder.
    max_length, target_length: tokens of a source and of a target; longer ones are truncated by the tokenizer.
    source_field, target_field: fields of the two texts; "translation.de" is the entry `de` of the field `translation`.
    prefix: prepended to every source text, e.g. "summarize: ".
    bad_records: "stop" at the first one, or {"action": "skip", "most": 0.01}; see `zoo.data.bad_records`.

  Each example: `tokens` int32 [max_length], `valid` bool [max_length], `target_tokens` int32 [target_length],
  `target_valid` bool [target_length], False on padding. `texts(index)`: both as strings. `info`: source,
  tokenizer, vocab_size, max_length, target_length.
  """
  lengths, fields = (max_length, target_length), (source_field, target_field)
  return open_prompts(FramedPairs, source, split, data_dir, tokenizer, lengths, fields, prefix, bad_records)


class FramedPairs(Prompts):
  """See `framed_pairs`."""

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    target = self.tokenizer([self.texts(index)[1]], length=self.info["target_length"])
    targets = {f"target_{name}": target[name][0] for name in ("tokens", "valid")}
    return {**super().example(index, rng), **targets}
