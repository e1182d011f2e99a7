"""Exact match and F1 of answers, as in SQuAD (https://arxiv.org/abs/1606.05250, section 6.1)."""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_SIGNS = str.maketrans("", "", string.punctuation)


def normalized(answer: str) -> str:
  """Normalises an answer: lower case, no ASCII punctuation or English articles, single blanks.

  >>> normalized("The  Eiffel-Tower!")
  'eiffeltower'
  """
  return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_SIGNS)).split())


def score_answer(answer: str, references: Sequence[str]) -> tuple[float, float]:
  """(exact match, F1) of an answer with its best-matching reference; "" means no answer.

  >>> score_answer("in the Paris", ["Paris", "Rome"])
  (0.0, 0.6666666666666666)
  """
  references = [text for text in references if normalized(text)] or [""]
  return max(_exact(answer, text) for text in references), max(_f1(answer, text) for text in references)


def _exact(answer: str, reference: str) -> float:
  return float(normalized(answer) == normalized(reference))


def _f1(answer: str, reference: str) -> float:
  words, reference_words = (normalized(text).split() for text in (answer, reference))
  if not words or not reference_words:
    return float(words == reference_words)
  common = (Counter(words) & Counter(reference_words)).total()
  return 2 * common / (len(words) + len(reference_words))
