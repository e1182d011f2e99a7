"""Noise for denoising objectives: T5's span corruption and BART's text infilling and sentence permutation."""

from collections.abc import Sequence

import numpy as np


def span_lengths(length: int, rate: float, mean_span: float) -> tuple[int, int]:
  """(tokens, target length): the number of tokens that gives exactly `length` corrupted inputs, each with a final eos.

  `random_spans_helper` of https://github.com/google-research/text-to-text-transfer-transformer,
  t5/data/preprocessors.py: 512 inputs at .15 and 3 come from 568 tokens, with 114 targets.
  """

  def corrupted(tokens: int) -> tuple[int, int]:
    noise = int(round(tokens * rate))
    spans = int(round(noise / mean_span))
    return tokens - noise + spans + 1, noise + spans + 1

  tokens = length - 1
  while corrupted(tokens + 1)[0] <= length:
    tokens += 1
  return tokens, corrupted(tokens)[1]


def noise_mask(length: int, rate: float, mean_span: float, rng: np.random.Generator) -> np.ndarray:
  """Noise mask, bool [length], True for dropped tokens: round(rate * length) of them, in spans of mean `mean_span`.

  The first token is kept, the last is dropped, and all such masks are equally likely. `random_spans_noise_mask` of T5.
  """
  noise = min(max(int(round(length * rate)), 1), length - 1)
  spans = min(max(int(round(noise / mean_span)), 1), length - noise)
  runs = np.stack([_parts(length - noise, spans, rng), _parts(noise, spans, rng)], axis=1).ravel()
  return np.repeat(np.arange(2 * spans) % 2 == 1, runs)


def _parts(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
  """A random partition of `total` into `count` positive ints, all equally likely: int [count]."""
  cuts = 1 + rng.permutation(total - 1)[: count - 1]
  return np.diff(np.sort(cuts), prepend=0, append=total)


def with_sentinels(tokens: np.ndarray, is_noise: np.ndarray, first_sentinel: int) -> np.ndarray:
  """Replaces every span of `is_noise` by one sentinel: `first_sentinel`, then first_sentinel - 1, ...

  Args:
    tokens: int [length].
    is_noise: bool [length].
    first_sentinel: token id of the first span.

  Returns:
    int32 [length - noise tokens + spans]

  >>> with_sentinels(np.array([5, 6, 7, 8]), np.array([False, True, True, False]), 99).tolist()
  [5, 99, 8]
  """
  begins = is_noise & ~np.concatenate([[False], is_noise[:-1]])
  marked = np.where(begins, first_sentinel + 1 - np.cumsum(begins), tokens)
  return marked[begins | ~is_noise].astype(np.int32)


def infilled(
  tokens: np.ndarray, mask_token: int, rate: float, mean_span: float, rng: np.random.Generator
) -> np.ndarray:
  """BART's text infilling: drops round(rate * length) tokens, with a single mask in place of every span.

  Span lengths are Poisson with mean `mean_span`; a span of length 0 inserts a mask. Section 2.2 of
  https://arxiv.org/abs/1910.13461. int [length] -> int32 [kept tokens + spans].
  """
  missing = int(round(rate * len(tokens)))
  spans: list[int] = []
  while missing:
    spans.append(min(int(rng.poisson(mean_span)), missing))
    missing -= spans[-1]
  num_kept = len(tokens) - sum(spans)
  # A random interleaving of kept tokens and spans, each in its own order.
  is_span = np.zeros(num_kept + len(spans), bool)
  is_span[rng.permutation(len(is_span))[: len(spans)]] = True
  sizes = np.ones(len(is_span), int)
  sizes[is_span] = spans
  starts = np.cumsum(sizes) - sizes
  infilled_tokens = np.full(len(is_span), mask_token, np.int32)
  infilled_tokens[~is_span] = tokens[starts[~is_span]]
  return infilled_tokens


def shuffled(sentences: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
  """BART's sentence permutation: int [length] of each sentence -> all of them in random order, int [total length]."""
  return np.concatenate([sentences[index] for index in rng.permutation(len(sentences))])
