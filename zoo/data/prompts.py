"""Prompts for generation with optional references: batches of `tokens`, `valid`."""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from zoo.data.bad_records import BadRecord
from zoo.data.fields import SourceRecords, first_record, text_info, texts_of
from zoo.data.pipeline import Example
from zoo.data.screening import open_checked
from zoo.data.tokenizers import tokenizer as open_tokenizer
from zoo.errors import UserError

Opened = TypeVar("Opened", bound="Prompts")


def prompts(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  tokenizer: str = "bert",
  max_length: int = 512,
  target_length: int = 128,
  source_field: str = "source",
  target_field: str | None = None,
  prefix: str = "",
  after_end: bool = False,
  bad_records: str | Mapping = "stop",
) -> "Prompts":
  """Prompts with the model's special tokens; longer ones are truncated by its tokenizer.

  Args:
    source, split, data_dir: see `zoo.data.sources.open_source`.
    tokenizer: name, or path of a tokenizer.json or of a published model's folder.
    max_length: maximum tokens of a prompt.
    target_length: maximum tokens of an answer, unless set elsewhere.
    source_field, target_field: fields of a prompt and of its reference, None if there is none; "translation.de" is the
      entry `de` of the field `translation`.
    prefix: prepended to every prompt, e.g. "summarize: " for a multi-task model.
    after_end: whether a prompt follows the end-of-text token, as in the stream of the pipeline `language`, instead of
      the model's special tokens.
    bad_records: "stop" at the first one, or {"action": "skip", "most": 0.01}; see `zoo.data.bad_records`.

  Each example: `tokens` int32 [max_length], `valid` bool [max_length], False on padding. `texts(index)`: the prompt and
  its reference, "" if there is none, as strings. `info`: source, tokenizer, vocab_size, max_length,
  target_length.
  """
  fields, lengths = (source_field, target_field), (max_length, target_length)
  records = open_prompts(Prompts, source, split, data_dir, tokenizer, lengths, fields, prefix, bad_records)
  records.begin = (records.eos,) if after_end else None
  return records


def open_prompts(
  kind: type[Opened],
  source: str,
  split: str,
  data_dir: str | None,
  tokenizer: str,
  lengths: tuple[int, int],
  fields: tuple[str, str | None],
  prefix: str,
  bad_records: str | Mapping,
) -> Opened:
  """Opens prompts and checks that their fields exist; arguments as in `prompts`."""
  (max_length, target_length), (source_field, target_field) = lengths, fields
  raw, rule = open_checked(source, split, data_dir, bad_records)
  tops = [None if field is None else field.partition(".")[0] for field in (source_field, target_field)]
  first_record(raw, rule, *tops)  # Which must have them.
  encoder = open_tokenizer(tokenizer)
  if max_length < 2 or target_length < 1:
    raise UserError(f"max_length is {max_length}, target_length {target_length}. They must be at least 2 and 1.")
  records = kind(raw, rule, cache=False)
  records.tokenizer, records.prefix, records.fields = encoder, prefix, (source_field, target_field)
  records.eos = encoder.eos if encoder.eos is not None else encoder.sep
  records.has_references = target_field is not None
  records.info = text_info(raw, encoder, max_length, target_length=target_length)
  return records


class Prompts(SourceRecords):
  """See `prompts`."""

  framed = True
  tokenizer: Any
  prefix: str
  fields: tuple[str, str | None]
  eos: int | None
  begin: tuple[int | None, ...] | None = None
  has_references: bool

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    text, length = self.prefix + self.texts(index)[0], self.info["max_length"]
    if self.begin is None:
      batch = self.tokenizer([text], length=length)
      return {name: batch[name][0] for name in ("tokens", "valid")}
    ids = [*self.begin, *self.tokenizer.encode(text)][:length]
    tokens = np.full(length, self.tokenizer.pad or 0, np.int32)
    tokens[: len(ids)] = ids
    return {"tokens": tokens, "valid": np.arange(length) < len(ids)}

  def texts(self, index: int) -> tuple[str, str]:
    """A prompt, without prefix, and its reference."""
    return self.prepared[index]

  def _prepare(self, raw: dict[str, Any], index: int) -> tuple[str, str]:
    what = self.source.where(index)
    source, target = ("" if field is None else text_at(raw, field, what) for field in self.fields)
    return source, target


def text_at(raw: Mapping[str, Any], field: str, what: str) -> str:
  """The text of a field, or of an entry of it: "translation.de". BadRecord if it is missing or empty."""
  value: Any = raw
  for name in field.split("."):
    if not isinstance(value, Mapping) or name not in value:
      raise BadRecord(f"{what} has no '{field}'.")
    value = value[name]
  texts = texts_of(value, f"{what}: {field}")
  if not texts:
    raise BadRecord(f"{what}: {field} is empty.")
  return "\n\n".join(texts)
