"""Recordings of any length and their texts, to be transcribed: nothing is batched, each is decoded when asked for."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.data import sounds
from zoo.data.bad_records import BadRecord, Policy
from zoo.data.fields import SourceRecords, check_fields, first_record, text_of
from zoo.data.pipeline import Example
from zoo.data.screening import open_checked
from zoo.data.sources import Source
from zoo.data.tokenizers import tokenizer as open_tokenizer
from zoo.errors import UserError, shown

TEXT_FIELDS = ("text", "sentence", "transcription", "transcript", "normalized_text", "raw_text", "txt")
UNTIMED = "<|notimestamps|>"


def recordings(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  tokenizer: str = "bytes",
  audio_field: str = "audio",
  text_field: str | None = None,
  language: str | None = None,
  translate: bool = False,
  bad_records: str | Mapping = "stop",
  processor: Any = None,
) -> "Recordings":
  """Recordings of any length and their texts, as `zoo.evaluate.speech` reads them; arguments as of `audio_text`.

  language: its name or code; None: as the model's files say.
  translate: whether the texts are translations into English.

  Each example: `samples` float32 [samples] at the model's rate. `info`: source, tokenizer, vocab_size, rate.

  Raises:
    UserError: the model takes no sounds.
  """
  if processor is None:
    raise UserError("recordings needs an audio model, such as whisper.")
  raw, rule = open_checked(source, split, data_dir, bad_records)
  fields = fields_of(raw, rule, audio_field, text_field)
  return Recordings(
    raw, rule, fields, open_tokenizer(tokenizer), processor, language=language, task="translate" if translate else None
  )


def fields_of(source: Source, rule: Policy, audio_field: str, text_field: str | None) -> tuple[str, str]:
  """The fields of recording and text; UserError if the data have none."""
  first = first_record(source, rule, audio_field, text_field or TEXT_FIELDS)
  text_field = text_field or next((field for field in TEXT_FIELDS if field in first), "text")
  check_fields(source, audio_field, text_field, record=first)
  return audio_field, text_field


def prompt_tokens(tokenizer: Any, language: str | None, task: str = "transcribe") -> list[int]:
  """The ids between a Whisper's start token and the text: language and task, and that no times follow.

  Raises:
    UserError: the tokenizer has no token for the language or the task.
  """
  backend = getattr(tokenizer, "backend", None)
  known = lambda name: None if backend is None else backend.token_to_id(name)
  names = [] if language is None else [f"<|{language}|>", f"<|{task}|>"]
  ids = [known(name) for name in names]
  if None in ids:
    raise UserError(
      f"The tokenizer {tokenizer} has no token {shown(names[ids.index(None)])}. Set language, or leave it out."
    )
  return [token for token in (*ids, known(UNTIMED)) if token is not None]


class Recordings(SourceRecords):
  """See `recordings`. `language`, `task`: of the texts, None where nothing is said."""

  def __init__(
    self,
    source: Source,
    rule: Policy,
    fields: tuple[str, str],
    tokenizer: Any,
    processor: Any,
    *,
    language: str | None,
    task: str | None,
    cache: bool = False,
  ):
    super().__init__(source, rule, cache)
    self.fields, self.tokenizer, self.processor = fields, tokenizer, processor
    self.language, self.task = language, task
    self.info = {
      "source": source.name,
      "tokenizer": tokenizer,
      "vocab_size": tokenizer.vocab_size,
      "rate": processor.rate,
    }

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    return dict(self.prepared[index])

  def sound(self, index: int) -> sounds.Sound:
    """A recording at the model's rate, of any length."""
    raw = self.source[index]
    self._check(raw, index, self.fields[0])
    return self._sound(raw, self.source.where(index))

  def text(self, index: int) -> str:
    """The transcript of a recording."""
    raw = self.source[index]
    self._check(raw, index, self.fields[1])
    return text_of(raw[self.fields[1]], f"{self.source.where(index)}: {self.fields[1]}")

  def _prepare(self, raw: dict[str, Any], index: int) -> Example:
    self._check(raw, index, *self.fields)
    text_of(raw[self.fields[1]], f"{self.source.where(index)}: {self.fields[1]}")
    return {"samples": self._sound(raw, self.source.where(index)).samples}

  def _sound(self, raw: Mapping[str, Any], what: str) -> sounds.Sound:
    start, seconds = (_seconds(raw.get(name), f"{what}: {name}") for name in ("offset", "duration"))
    seconds = None if start is None else seconds
    return sounds.decode(raw[self.fields[0]], self.processor.rate, what, start=start or 0.0, seconds=seconds)


def _seconds(value: Any, what: str) -> float | None:
  """A time of a manifest; None where there is none."""
  if value is None or value == "":
    return None
  try:
    seconds = float(value)
  except (TypeError, ValueError):
    seconds = -1.0
  if not 0 <= seconds < 1e6:
    raise BadRecord(f"{what} is {shown(value)}. It must be seconds, 0 or more.")
  return seconds
