"""Recordings with transcripts, for Whisper: batches of `tokens` (features), `target_tokens`, `target_valid`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.data.bad_records import BadRecord, Policy
from zoo.data.fields import text_of
from zoo.data.padding import end_token
from zoo.data.pipeline import Example
from zoo.data.recordings import Recordings, fields_of, prompt_tokens
from zoo.data.screening import open_checked
from zoo.data.sources import Source
from zoo.data.tokenizers import tokenizer as open_tokenizer
from zoo.errors import UserError, tell


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

  Raises:
    UserError: the model takes no sounds.
  """
  if processor is None:
    raise UserError("audio_text needs an audio model, such as whisper.")
  raw, rule = open_checked(source, split, data_dir, bad_records)
  fields, encoder = fields_of(raw, rule, audio_field, text_field), open_tokenizer(tokenizer)
  records = AudioText(
    raw, rule, fields, encoder, processor, target_length=target_length, language=language, task=task, cache=cache
  )
  changes = None if rule.skips else records.sound(0).changes()
  if changes is not None:
    tell(f"{raw.name}: recordings are changed for the model: of the first, {changes}.")
  return records


class AudioText(Recordings):
  """See `audio_text`."""

  def __init__(
    self,
    source: Source,
    rule: Policy,
    fields: tuple[str, str],
    tokenizer: Any,
    processor: Any,
    *,
    target_length: int,
    language: str | None,
    task: str,
    cache: bool,
  ):
    super().__init__(source, rule, fields, tokenizer, processor, language=language, task=task, cache=cache)
    self.prompt, self.target_length = prompt_tokens(tokenizer, language, task), target_length
    self.eos, self.pad = end_token(tokenizer), tokenizer.pad or 0
    if target_length < len(self.prompt) + 2:
      raise UserError(f"target_length is {target_length}. What frames a text has {len(self.prompt) + 1} tokens.")
    self.info["target_length"] = target_length

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
