"""Recordings with transcripts, for Whisper: batches of `tokens` (features), `target_tokens`, `target_valid`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.data import sounds
from zoo.data.bad_records import BadRecord, Policy
from zoo.data.fields import SourceRecords, check_fields, first_record, text_of
from zoo.data.padding import end_token
from zoo.data.pipeline import Example
from zoo.data.screening import open_checked
from zoo.data.sources import Source
from zoo.data.tokenizers import tokenizer as open_tokenizer
from zoo.errors import UserError, shown, tell

TEXT_FIELDS = ("text", "sentence", "transcription", "transcript", "normalized_text", "raw_text", "txt")
UNTIMED = "<|notimestamps|>"


def audio_text(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  tokenizer: str = "bytes",
  target_length: int = 128,
  audio_field: str = "audio",
  text_field: str | None = None,
  language: str | None = None,
  task: str = "transcribe",
  cache: bool = False,
  bad_records: str | Mapping = "stop",
  processor: Any = None,
) -> "AudioText":
  """Recordings with transcripts, for training a Whisper with `zoo.objectives.seq2seq`.

  Recordings of any rate and number of channels are converted to the model's; the conversion of the first is reported.
  One that is longer than the model's window, or whose text has more than target_length tokens, is a bad record.

  Args:
    source, split, data_dir: see `zoo.data.sources.open_source`, e.g. `audio:FOLDER`.
    tokenizer: name or path; by default the model's.
    target_length: tokens of a text, including the special ones around it.
    audio_field: field of the recording: the bytes of a file. If there is a field `offset`, in seconds, only the
      `duration` seconds from there on are used, as in NeMo's manifests.
    text_field: field of the text; by default the first existing one of text, sentence, transcription, ...
    language: code of the language, "en": the text begins with the tokens of language and task, as for a
      multilingual Whisper. None: without. In both cases <|notimestamps|> follows, if the tokenizer has it.
    task: "transcribe" or "translate".
    cache: keep features and tokens in memory.
    bad_records: "stop" at the first one, or {"action": "skip", "most": 0.01}; see `zoo.data.bad_records`.
    processor: samples [samples] -> features, with `rate` and `seconds`: the model's `zoo.hub.log_mel.LogMel`. Not set
      by configs.

  Each example: `tokens` float32 [frames, bands], `target_tokens` int32 [target_length], `target_valid` bool
  [target_length]. `info`: source, tokenizer, vocab_size, target_length, rate.
  """
  if processor is None:
    raise UserError("audio_text makes the features of a model of sound, and there is none. Train a whisper.")
  raw, rule = open_checked(source, split, data_dir, bad_records)
  first = first_record(raw, rule, audio_field, text_field or TEXT_FIELDS)
  text_field = text_field or next((field for field in TEXT_FIELDS if field in first), "text")
  check_fields(raw, audio_field, text_field, record=first)
  encoder = open_tokenizer(tokenizer)
  prompt = prompt_tokens(encoder, language, task)
  records = AudioText(raw, rule, (audio_field, text_field), encoder, prompt, target_length, processor, cache)
  changes = None if rule.skips else records.sound(0).changes()
  if changes is not None:
    tell(f"{raw.name}: recordings are changed for the model: of the first, {changes}.")
  return records


def prompt_tokens(tokenizer: Any, language: str | None, task: str = "transcribe") -> list[int]:
  """The token ids between a Whisper's start token and the text: language, task, and no timestamps.

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


class AudioText(SourceRecords):
  """See `audio_text`."""

  def __init__(
    self,
    source: Source,
    rule: Policy,
    fields: tuple[str, str],
    tokenizer: Any,
    prompt: Sequence[int],
    target_length: int,
    processor: Any,
    cache: bool,
  ):
    super().__init__(source, rule, cache)
    self.fields, self.tokenizer, self.prompt, self.target_length = fields, tokenizer, list(prompt), target_length
    self.processor, self.eos, self.pad = processor, end_token(tokenizer), tokenizer.pad or 0
    if target_length < len(self.prompt) + 2:
      raise UserError(f"target_length is {target_length}. What frames a text has {len(self.prompt) + 1} tokens.")
    self.info = {
      "source": source.name,
      "tokenizer": tokenizer,
      "vocab_size": tokenizer.vocab_size,
      "target_length": target_length,
      "rate": processor.rate,
    }

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    return dict(self.prepared[index])

  def sound(self, index: int) -> sounds.Sound:
    """The samples of a recording, resampled to the model's rate."""
    raw = self.source[index]
    self._check(raw, index, self.fields[0])
    return self._sound(raw, self.source.where(index))

  def text(self, index: int) -> str:
    """The transcript of a recording."""
    raw = self.source[index]
    self._check(raw, index, self.fields[1])
    return text_of(raw[self.fields[1]], f"{self.source.where(index)}: {self.fields[1]}")

  def _prepare(self, raw: dict[str, Any], index: int) -> Example:
    what = self.source.where(index)
    self._check(raw, index, *self.fields)
    sound = self._sound(raw, what)
    seconds = len(sound.samples) / sound.rate
    if seconds > self.processor.seconds:
      raise BadRecord(f"{what} lasts {seconds:.1f} s, the model hears {self.processor.seconds} s. Cut it into parts.")
    text = text_of(raw[self.fields[1]], f"{what}: {self.fields[1]}")
    ids = [*self.prompt, *self.tokenizer.encode(text), self.eos]
    if len(ids) > self.target_length:
      raise BadRecord(f"{what}: the text has {len(ids)} tokens, target_length is {self.target_length}. Raise it.")
    tokens = np.full(self.target_length, self.pad, np.int32)
    tokens[: len(ids)] = ids
    features = self.processor(sound.samples)["features"][0]
    return {"tokens": features, "target_tokens": tokens, "target_valid": np.arange(self.target_length) < len(ids)}

  def _sound(self, raw: Mapping[str, Any], what: str) -> sounds.Sound:
    start, seconds = (_seconds(raw.get(name), f"{what}: {name}") for name in ("offset", "duration"))
    seconds = None if start is None else seconds
    return sounds.decode(raw[self.fields[0]], self.processor.rate, what, start=start or 0.0, seconds=seconds)


def _seconds(value: Any, what: str) -> float | None:
  """A time in seconds from a manifest; None if missing."""
  if value is None or value == "":
    return None
  try:
    seconds = float(value)
  except (TypeError, ValueError):
    seconds = -1.0
  if not 0 <= seconds < 1e6:
    raise BadRecord(f"{what} is {shown(value)}. It must be seconds, 0 or more.")
  return seconds
