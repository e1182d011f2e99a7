"""Error rates of transcripts of recordings of any length."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from zoo.data.recordings import UNTIMED
from zoo.errors import UserError
from zoo.evaluate.artifacts import write_text
from zoo.evaluate.forward import records_of
from zoo.evaluate.speech_scores import SpeechScores, normaliser
from zoo.hub.whisper_start import CODES
from zoo.transcribe import Transcriber
from zoo.transcribe.transcribing import check_transcribes


def speech(
  model: Any,
  *,
  data: Mapping | Any,
  batch_size: int = 16,
  normalise: str | None = None,
  overlap: float | None = None,
  max_new_tokens: int | None = None,
  num_beams: int | None = None,
  examples: int = 20,
  file: str = "speech",
  spoken: Any = None,
) -> Callable:
  """-> evaluate(params, folder=None, step=None) -> {"wer", "cer", "substitutions", "deletions", "insertions", "words",
  "seconds"}

  See `zoo.evaluate.speech_scores`; the last are how many words the references have, and how long the recordings are.
  They are transcribed one after the other (`zoo.transcribe`), so memory does not grow with the data. Writes `file`.txt:
  references and what the model wrote, as they are before they are normalised.

  Args:
    model: a Whisper.
    data: section of the pipeline `recordings` or `audio_text`, or its records.
    batch_size: windows at a time.
    normalise: what is done to texts before they are compared: "english", "basic" or "none". By default English where
      the language is said to be English or the model knows no other, else basic.
    overlap, max_new_tokens, num_beams: as of `zoo.transcribe`.
    examples: how many to write into the file.
    file: its name, without ending.
    spoken: how the model's folder asks for texts: entries of its files; `zoo.evaluate_model` sets them.

  Raises:
    UserError: the model does not transcribe, or the data are not recordings with transcripts.
  """
  check_transcribes(model)
  records = records_of(data, model, "speech")
  if not hasattr(records, "sound") or not hasattr(records, "text"):
    raise UserError("speech needs recordings with transcripts. Use the data pipeline recordings.")
  tokenizer = records.info["tokenizer"]
  entries, config, where = spoken or ({}, {}, "")
  transcriber = Transcriber(model, None, records.processor, tokenizer, entries, config, where, {})
  transcriber = transcriber.told(language=records.language, task=records.task)
  transcriber = transcriber.told(max_new_tokens=max_new_tokens, num_beams=num_beams)
  transcriber.check(batch_size=batch_size, overlap=overlap)  # Fails before training, not after it.
  normalise = normalise or ("english" if _is_english(records.language, entries, tokenizer) else "basic")
  change = normaliser(normalise)
  SpeechScores(change)

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    counted, listed, lengths = SpeechScores(change), [], np.zeros(1, np.int64)

    def samples(index: int) -> np.ndarray:
      sound = records.sound(index).samples
      lengths[0] += len(sound)
      return sound

    hear = transcriber._replace(params=params)
    texts = hear.texts(map(samples, range(len(records))), batch_size=batch_size, overlap=overlap)
    for index, text in enumerate(texts):
      reference = records.text(index)
      counted.add([text], [reference])
      if len(listed) < examples:
        listed.append(f"reference  {reference}\nmodel      {text}")
    head = f"normalise: {normalise}" if step is None else f"Step {step}, normalise: {normalise}"
    write_text(folder, f"{file}.txt", "\n\n".join([head, *listed]))
    return counted.metrics() | {"seconds": float(lengths[0] / records.processor.rate)}

  return evaluate


def _is_english(language: str | None, entries: Mapping[str, Any], tokenizer: Any) -> bool:
  """Whether texts are English: as is said, or as of a model that has no tokens for languages."""
  language = language or entries.get("language")
  if language is not None:
    code = str(language).lower().strip("<|>")
    return CODES.get(code, code) == "en"
  backend = getattr(tokenizer, "backend", None)
  return entries.get("is_multilingual") is False or (
    backend is not None and backend.token_to_id(UNTIMED) is not None and not entries.get("lang_to_id")
    and backend.token_to_id("<|de|>") is None
  )  # fmt: skip
