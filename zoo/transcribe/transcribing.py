"""`transcribe` and `transcriber`: a Whisper's folder and recordings of any length to texts."""

import itertools
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.data import sounds
from zoo.data.padding import end_token
from zoo.data.recordings import prompt_tokens
from zoo.data.tokenizers.base import Tokenizer
from zoo.errors import UserError, family_of, shown
from zoo.generate import checks, generate
from zoo.hub.files import CONFIG, is_published
from zoo.hub.generation import FILE, entries_of, ignored
from zoo.hub.generation import options as stated_options
from zoo.hub.ids import folder_of
from zoo.hub.log_mel import LogMel
from zoo.hub.preprocessing import load_processor, sound_processor
from zoo.hub.tokenizers import load_tokenizer
from zoo.hub.whisper_start import CODES
from zoo.saving import load
from zoo.transcribe.merging import Answer, Marks, merged
from zoo.transcribe.windows import windows

OVERLAP = 1 / 6  # Of a window, at either end: transformers' default.
# What draws, or gives several answers: a recording has one text.
DRAWS = ("temperature", "top_k", "top_p", "min_p", "num_return")


def transcribe(
  source: Any,
  recordings: Any,
  *,
  rate: int | None = None,
  language: str | None = None,
  task: str | None = None,
  batch_size: int = 16,
  overlap: float | None = None,
  max_new_tokens: int | None = None,
  num_beams: int | None = None,
  dtype: Any = None,
  ignore: Collection[str] = (),
) -> Any:
  """Transcribes recordings of any length: a text, or a list of texts.

  A recording is read in windows as long as the model hears, which overlap; what is written for neighbours is joined
  where it agrees. Windows of all recordings share batches, and are heard only when their batch is due.

  Args:
    source: a Whisper: a folder in the hub's layout, a hub id, a run, or the result of `transcriber`, which loads it
      only once.
    recordings: paths of files (wav, flac, ogg, mp3), bytes of such files, or arrays of numbers in [-1, 1] (int16 and
      int32 are scaled): [samples], or with an axis of 2 to 8 channels, which are averaged. One, or a list.
    rate: samples a second of arrays; None: as the model takes them, 16,000. Files say their own. Others are resampled.
    language: name or code, "german" or "de"; None: as the folder says, or what each window sounds like.
    task: "transcribe" or "translate" (into English); None: as the folder says.
    batch_size: windows at a time.
    overlap: seconds at either end of a window that its neighbour hears too; a sixth of the window by default.
    max_new_tokens: the most that is written for a window; by default as the folder says, or as many as fit.
    num_beams: of beam search; by default as the folder says, or 1.
    dtype: of the parameters, e.g. "bfloat16".
    ignore: entries of a published model's files to leave unread, as of `zoo.load`.

  Raises:
    UserError: the model does not transcribe, a recording is damaged, empty or holds what is no number, the folder lacks
      its tokenizer, there is no such language.

  >>> import zoo
  >>> sizes = dict(source_length=50, max_length=8, dim=8, depth=1, num_heads=2)
  >>> model = zoo.build("whisper", vocab_size=260, mels=5, preprocessing={"tokenizer": "bytes"}, **sizes)
  >>> import jax
  >>> zoo.save("tiny_whisper", model, model.init(jax.random.key(0), *model.example())["params"])
  >>> text = zoo.transcribe("tiny_whisper", np.zeros(40_000, np.float32))
  """
  made = source if isinstance(source, Transcriber) else transcriber(source, dtype=dtype, ignore=ignore)
  several = isinstance(recordings, list | tuple)
  items = list(recordings) if several else [recordings]
  made = made.told(language=language, task=task, max_new_tokens=max_new_tokens, num_beams=num_beams)
  samples = (made.samples(item, rate, _name(item, number)) for number, item in enumerate(items))
  texts = list(made.texts(samples, batch_size=batch_size, overlap=overlap))
  return texts if several else texts[0]


def transcriber(source: str | os.PathLike, *, dtype: Any = None, ignore: Collection[str] = ()) -> "Transcriber":
  """Loads a model once, for many calls of `transcribe`; arguments as there.

  >>> whisper = transcriber("openai/whisper-tiny.en")  # doctest: +SKIP
  >>> transcribe(whisper, ["talk.wav", "answer.flac"])  # doctest: +SKIP
  """
  folder = folder_of(source)
  files = ignored(folder, ignore)
  model, params = load(source, dtype=dtype, ignore=files[CONFIG])
  check_transcribes(model)
  entries, config, where = entries_of(folder, files[FILE])
  tokenizer = load_tokenizer(source)
  processor: Any = load_processor(source) if is_published(folder) else sound_processor(model)
  return Transcriber(model, params, processor, tokenizer, entries, config, where, {})


def check_transcribes(model: Any) -> None:
  """UserError for a model that does not write what it hears."""
  if not hasattr(model, "mels"):
    raise UserError(f"A {family_of(model)} takes no audio. Transcribe with a whisper.")
  checks.decodes(model)


class Transcriber(NamedTuple):
  """A model that writes what it hears, and what is said of how.

  Attributes:
    model, params: a Whisper.
    processor: samples -> features.
    tokenizer: of what it writes.
    entries, config, where: as of `zoo.hub.generation.options`; {}, {} and "" of a run.
    said: keywords of `generate`, and language and task, that go before those of the folder.
  """

  model: Any
  params: Any
  processor: LogMel
  tokenizer: Tokenizer
  entries: Mapping[str, Any]
  config: Mapping[str, Any]
  where: str
  said: Mapping[str, Any]

  def told(self, **said: Any) -> "Transcriber":
    """A copy with keywords that override those of the folder; None keeps the folder's."""
    return self._replace(said={**self.said, **{name: x for name, x in said.items() if x is not None}})

  def options(self) -> dict[str, Any]:
    """Keywords of `generate`."""
    spoken = {name: self.said[name] for name in ("language", "task") if name in self.said}
    said = {name: x for name, x in self.said.items() if name not in spoken}
    if self.entries or self.config:
      entries = {**self.entries, **spoken}
      entries = {name: x for name, x in entries.items() if name != "max_length" or "max_new_tokens" not in said}
      stated = stated_options(entries, self.config, self.where)
    else:
      language = spoken.get("language")
      code = None if language is None else CODES.get(str(language).lower().replace(" ", "_"), language)
      if code is None and spoken.get("task", "transcribe") != "transcribe":
        raise UserError(f"task is {shown(spoken['task'])}. Say language, too.")
      prompt = prompt_tokens(self.tokenizer, code, spoken.get("task", "transcribe"))
      stated = {"start_token": [self.model.start_token, *prompt]}
    stated = {name: x for name, x in stated.items() if name not in DRAWS}
    start, most = _listed(stated.get("start_token")), self.model.max_length
    room = most - len(start)
    if room < 1:
      raise UserError(f"Answers begin with {len(start)} tokens, which leaves no room in max_length {most}.")
    defaults = {"eos": end_token(self.tokenizer), "max_new_tokens": room}
    return {**defaults, **stated, **said}

  def check(self, *, batch_size: int, overlap: float | None) -> dict[str, Any]:
    """`options`, or a UserError for what `texts` would be refused."""
    checks.number("batch_size", batch_size, integer=True, minimum=1)
    if overlap is not None:
      checks.number("overlap", overlap, minimum=0, what=" of seconds")
    windows(1, self.processor.seconds * self.processor.rate, self._shared(overlap))
    options = self.options()
    new, room = options["max_new_tokens"], self.model.max_length - len(_listed(options.get("start_token")))
    checks.number("max_new_tokens", new, integer=True, minimum=1, maximum=room, what=": as many as fit in max_length")
    checks.number("num_beams", options.get("num_beams", 1), integer=True, minimum=1)
    return options

  def _shared(self, overlap: float | None) -> int:
    """Samples at either end of a window that its neighbour hears too."""
    return round((OVERLAP * self.processor.seconds if overlap is None else overlap) * self.processor.rate)

  def samples(self, recording: Any, rate: int | None, what: str) -> np.ndarray:
    """float32 [samples] of a file, its bytes, or an array, at the model's rate."""
    if isinstance(recording, str | os.PathLike):
      try:
        with open(recording, "rb") as file:
          recording = file.read()
      except OSError as error:
        raise UserError(f"{what} cannot be read: {error.strerror}.") from error
    if isinstance(recording, bytes):
      return sounds.decode(recording, self.processor.rate, what).samples
    return sounds.from_array(recording, self.processor.rate if rate is None else rate, self.processor.rate, what)

  def texts(
    self, recordings: Iterable[np.ndarray], *, batch_size: int = 16, overlap: float | None = None
  ) -> Iterator[str]:
    """Of each recording, float32 [samples] at the model's rate, its text, as soon as it is there."""
    options = self.check(batch_size=batch_size, overlap=overlap)
    rate, seconds = self.processor.rate, self.processor.seconds
    length, shared = seconds * rate, self._shared(overlap)
    marks = Marks.of(self.tokenizer, seconds / self.model.encoder.max_length)
    parts = (
      (samples[part.start : part.end], part) for samples in recordings for part in windows(len(samples), length, shared)
    )
    heard: list[Answer] = []
    for batch in iter(lambda: list(itertools.islice(parts, batch_size)), []):
      for (_, part), tokens in zip(batch, self._written([samples for samples, _ in batch], options), strict=True):
        heard.append(Answer(tokens, part.length / rate, part.left / rate, part.right / rate))
        if part.is_last:
          yield merged(heard, marks, self._decoded)
          heard = []

  def _written(self, batch: Sequence[np.ndarray], options: Mapping[str, Any]) -> list[list[int]]:
    """The tokens of an answer to each of several windows."""
    rows = 1 << (len(batch) - 1).bit_length()  # Few programs are compiled: for 1, 2, 4, 8 ... rows.
    features = [self.processor(samples)["features"][0] for samples in batch]
    features += features[:1] * (rows - len(batch))
    answers = np.asarray(generate(self.model, self.params, np.stack(features), **options))
    eos = options["eos"]
    ends = set(eos) if isinstance(eos, list | tuple) else {eos}
    new = answers[: len(batch), answers.shape[1] - options["max_new_tokens"] :].tolist()
    return [list(itertools.takewhile(lambda token: token not in ends, row)) for row in new]

  def _decoded(self, tokens: Sequence[int]) -> str:
    # An embedding may have more rows than the tokenizer has tokens.
    return self.tokenizer.decode([token for token in tokens if token < self.tokenizer.vocab_size])


def _listed(start: Any) -> list:
  """The start tokens of an answer; the model's own start token if None."""
  return start if isinstance(start, list) else [start]


def _name(item: Any, number: int) -> str:
  return str(item) if isinstance(item, str | os.PathLike) else f"recording {number}"
