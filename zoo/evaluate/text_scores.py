"""Similarity of texts to their references: BLEU, chrF and ROUGE, from 0 to 100."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.errors import UserError
from zoo.extras import install

ROUGE = ("rouge1", "rouge2", "rougeL")


def scores(texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
  """Corpus bleu and chrf (chrF2), by sacreBLEU; rouge1, rouge2, rougeL: the mean F1 of stems, by rouge-score.

  https://aclanthology.org/W18-6319, https://aclanthology.org/W15-3049, https://aclanthology.org/W04-1013
  """
  sacrebleu, rouge = package("sacrebleu"), package("rouge_score.rouge_scorer")
  scorer = rouge.RougeScorer(list(ROUGE), use_stemmer=True)
  rouge_scores = [scorer.score(reference, text) for text, reference in zip(texts, references, strict=True)]
  return {
    "bleu": sacrebleu.corpus_bleu(list(texts), [list(references)]).score,
    "chrf": sacrebleu.corpus_chrf(list(texts), [list(references)]).score,
    **{name: 100 * float(np.mean([scored[name].fmeasure for scored in rouge_scores])) for name in ROUGE},
  }


def package(name: str, what: str = "generation") -> Any:
  """Imports a module of the extra `scores`; UserError, which names the evaluator `what`, if it is not installed."""
  try:
    return importlib.import_module(name)
  except ImportError as error:
    distribution = name.partition(".")[0]
    raise UserError(
      f"{what} counts with {distribution}, which is not installed. Install it with: {install('scores')}."
    ) from error
