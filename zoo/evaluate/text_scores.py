"""BLEU, chrF and ROUGE of texts against references, from 0 to 100."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.errors import UserError
from zoo.extras import install

MEASURES = ("bleu", "chrf", "rouge")
ROUGE = ("rouge1", "rouge2", "rougeL")


class TextScores:
  """Corpus scores accumulated over parts; only sums are kept.

  Corpus bleu and chrf (chrF2), by sacreBLEU; rouge1, rouge2, rougeL: the mean F1 of stems, by rouge-score.
  https://aclanthology.org/W18-6319, https://aclanthology.org/W15-3049, https://aclanthology.org/W04-1013

  Args:
    measures: some of MEASURES.

  >>> scores = TextScores(["bleu"])
  >>> scores.add(["a cat on a mat"], ["a cat on a mat"])
  >>> round(scores.metrics()["bleu"])
  100
  """

  def __init__(self, measures: Sequence[str] = MEASURES):
    strange = [name for name in measures if name not in MEASURES]
    if strange or not measures:
      raise UserError(f"measures is {list(measures)}. It must be some of: {', '.join(MEASURES)}.")
    self.corpus: dict[str, Any] = {}
    if {"bleu", "chrf"} & set(measures):
      metrics = package("sacrebleu").metrics
      every = {"bleu": metrics.BLEU, "chrf": metrics.CHRF}
      self.corpus = {name: every[name]() for name in ("bleu", "chrf") if name in measures}
    self.statistics: dict[str, np.ndarray] = {}
    self.rouge: Any = None
    if "rouge" in measures:
      self.rouge = package("rouge_score.rouge_scorer").RougeScorer(list(ROUGE), use_stemmer=True)
    self.rouge_sums, self.texts = np.zeros(len(ROUGE)), 0

  def add(self, texts: Sequence[str], references: Sequence[str]) -> None:
    """Adds texts, each with its reference."""
    if len(texts) != len(references):
      raise ValueError(f"There are {len(texts)} texts and {len(references)} references.")
    for name, metric in self.corpus.items():
      # The two halves of sacreBLEU's corpus_score: statistics of texts are summed before the score is computed.
      counts = np.sum(metric._extract_corpus_statistics(list(texts), [list(references)]), axis=0)
      self.statistics[name] = self.statistics.get(name, 0) + counts
    for text, reference in zip(texts, references) if self.rouge is not None else ():
      scored = self.rouge.score(reference, text)
      self.rouge_sums += [scored[name].fmeasure for name in ROUGE]
    self.texts += len(texts)

  def metrics(self) -> dict[str, float]:
    """The scores of all texts so far."""
    scores = {
      name: float(metric._aggregate_and_compute([self.statistics[name].tolist()]).score)
      for name, metric in self.corpus.items()
    }
    if self.rouge is not None:
      scores |= {name: float(100 * x / self.texts) for name, x in zip(ROUGE, self.rouge_sums)}
    return scores


def scores(texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
  """Scores of a full corpus; see `TextScores`."""
  corpus = TextScores()
  corpus.add(texts, references)
  return corpus.metrics()


def package(name: str) -> Any:
  """Imports a module of the extra `scores`; UserError if it is not installed."""
  try:
    return importlib.import_module(name)
  except ImportError as error:
    distribution = name.partition(".")[0]
    raise UserError(
      f"Texts are scored with {distribution}, which is not installed. Install it with: {install('scores')}."
    ) from error
