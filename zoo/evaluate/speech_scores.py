"""Error rates of transcripts, by jiwer, of texts normalised as in Whisper's paper."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zoo.errors import UserError
from zoo.extras import install

NORMALISERS = ("english", "basic", "none")


def normaliser(name: str) -> Callable[[str], str]:
  """The normaliser of that name: https://arxiv.org/abs/2212.04356, appendix C, by the package whisper-normalizer.

  "english" spells numbers, contractions and British words in one way and leaves out fillers; "basic" leaves out
  punctuation and case; "none" changes nothing.

  >>> normaliser("english")("Mr. Park's colour, uh, was forty-two.")
  'mister park is color was 42'
  >>> normaliser("basic")("Ça va, toi?").strip()
  'ça va toi'
  """
  if name not in NORMALISERS:
    raise UserError(f"normalise is {name!r}. It must be one of: {', '.join(NORMALISERS)}.")
  if name == "none":
    return lambda text: text
  if name == "english":
    return package("whisper_normalizer.english").EnglishTextNormalizer()
  return package("whisper_normalizer.basic").BasicTextNormalizer()


class SpeechScores:
  """Error rates of a corpus that is handed over in parts; only sums are kept.

  wer, cer: words, and characters, that are substituted, left out or added, over those of the references: jiwer's `wer`
  and `cer` of the whole corpus. Both may exceed 1.

  Args:
    normalise: str -> str, of texts and of references.

  >>> scores = SpeechScores()
  >>> scores.add(["a cat on mat"], ["a cat on a mat"])
  >>> scores.metrics()["wer"]
  0.2
  """

  def __init__(self, normalise: Callable[[str], str] = lambda text: text):
    self.normalise, self.jiwer = normalise, package("jiwer")
    self.words, self.characters = np.zeros(4, np.int64), np.zeros(4, np.int64)

  def add(self, texts: Sequence[str], references: Sequence[str]) -> None:
    """Takes in further texts, each with its reference."""
    texts, references = ([self.normalise(text) for text in some] for some in (texts, references))
    self.words += _counts(self.jiwer.process_words(references, texts))
    self.characters += _counts(self.jiwer.process_characters(references, texts))

  def metrics(self) -> dict[str, float]:
    """The rates of all texts so far, and what the words' is made of."""
    names = ("substitutions", "deletions", "insertions")
    of_words = {name: float(count) for name, count in zip(names, self.words[1:])}
    return {"wer": _rate(self.words), "cer": _rate(self.characters), **of_words, "words": float(self.words[:3].sum())}


def _counts(found: Any) -> list[int]:
  return [found.hits, found.substitutions, found.deletions, found.insertions]


def _rate(counts: np.ndarray) -> float:
  """Errors over the length of the references; where these are empty, as of jiwer, the number of errors."""
  return float(counts[1:].sum() / max(counts[:3].sum(), 1))


def package(name: str) -> Any:
  """Imports a module of the extra `speech`; UserError if it is not installed."""
  try:
    return importlib.import_module(name)
  except ImportError as error:
    distribution = name.partition(".")[0].replace("_", "-")
    raise UserError(
      f"Transcripts are scored with {distribution}, which is not installed. Install it with: {install('speech')}."
    ) from error
