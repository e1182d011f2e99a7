"""An interpolated n-gram language model with modified Kneser-Ney discounts, as a baseline.

    p(w | c) = max(n(c w) - D(n(c w)), 0) / n(c)  +  weight(c) * p(w | c without its oldest symbol)

where n counts occurrences in the longest order and distinct left neighbours in the lower ones, the three discounts D of
an order follow from its counts of counts, and the last step is the uniform distribution; each p(. | c) sums to one.
Source: Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling", 1998, section 3 and
equation 26.

Counting is sorting: an n-gram is encoded as one integer, `context * vocab_size + symbol`, where `context` numbers the
(n-1)-gram before its last symbol. So any vocabulary fits in 64 bits, and 11 million bytes are counted up to order 5 in
seconds.
"""

from typing import NamedTuple

import numpy as np


class Order(NamedTuple):
  """The n-grams of one length, and the back-off weights of their contexts."""

  keys: np.ndarray  # [grams] int64, sorted: context * vocab_size + symbol
  discounted: np.ndarray  # [grams]: (n - D(n)) / n(c)
  backoff: np.ndarray  # [contexts]: weight(c), 1 for unseen contexts


class NGram(NamedTuple):
  """A fitted n-gram model. `orders[0]` holds unigrams."""

  orders: tuple[Order, ...]
  vocab_size: int


def fit(symbols: np.ndarray, vocab_size: int, order: int = 5) -> NGram:
  """Fits a model to a training text.

  Args:
    symbols: [length] int, the concatenated training documents, with a boundary symbol between them.
    vocab_size: symbols are 0 .. vocab_size - 1.
    order: longest n-gram; 5 predicts from the four symbols before.
  """
  symbols = np.asarray(symbols, np.int64)
  if len(symbols) < order:
    raise ValueError(f"An n-gram of order {order} needs at least {order} symbols; the text has {len(symbols)}.")
  gram = np.zeros(len(symbols) + 1, np.int64)  # the number of the n-gram that ends at each position; here n = 0
  contexts, grams, counts, suffixes = 1, [], [], []
  for n in range(1, order + 1):
    # gram[i] ended at the symbol before symbols[i + n - 1], so the two make the n-gram that ends there.
    keys, first, gram_n, count = np.unique(
      gram[:-1] * vocab_size + symbols[n - 1 :], return_index=True, return_inverse=True, return_counts=True
    )
    suffixes.append(gram[1:][first])  # the (n-1)-gram that ends at the same position
    grams.append((keys, contexts))
    counts.append(count)
    gram, contexts = gram_n.reshape(-1), len(keys)
  for n in range(order - 1):  # lower orders count distinct left neighbours
    counts[n] = np.bincount(suffixes[n + 1], minlength=len(counts[n]))
  return NGram(tuple(_discount(*g, c, vocab_size) for g, c in zip(grams, counts, strict=True)), vocab_size)


def log_probabilities(model: NGram, symbols: np.ndarray) -> np.ndarray:
  """ln p(symbols[i] | the symbols before it), [length] int -> [length] float64, in nats."""
  symbols = np.asarray(symbols, np.int64)
  probability = np.full(len(symbols), 1.0 / model.vocab_size)
  context = np.zeros(
    len(symbols) + 1, np.int64
  )  # the number of the n-gram that ends before each position, -1 if unseen
  for order in model.orders:
    before = context[:-1]
    key = before * model.vocab_size + symbols
    index = np.minimum(np.searchsorted(order.keys, key), len(order.keys) - 1)
    is_known = (before >= 0) & (order.keys[index] == key)
    weight = np.where(before >= 0, order.backoff[before], 1.0)
    probability = np.where(is_known, order.discounted[index], 0.0) + weight * probability
    context = np.concatenate([[-1], np.where(is_known, index, -1)])
  return np.log(probability)


def _discount(keys: np.ndarray, contexts: int, count: np.ndarray, vocab_size: int) -> Order:
  """Subtracts D(n) from every count and adds the sum to the context's back-off weight."""
  context = keys // vocab_size
  discount = np.minimum(discounts(count)[np.minimum(count, 3)], count)
  total = np.bincount(context, count, contexts)
  freed = np.bincount(context, discount, contexts)
  occurs = total > 0
  return Order(
    keys=keys,
    discounted=(count - discount) / np.where(occurs, total, 1.0)[context],
    backoff=np.where(occurs, freed / np.where(occurs, total, 1.0), 1.0),
  )


def discounts(count: np.ndarray) -> np.ndarray:
  """[D(0), D(1), D(2), D(3 and more)] of equation 26: n - (n + 1) * Y * N(n+1) / N(n), Y = N(1) / (N(1) + 2 N(2)).

  If the counts of counts are too few for the formula (all 256 bytes are frequent), the discount is 0.5.
  """
  ones, twos, threes, fours = (int(np.sum(count == n)) for n in range(1, 5))
  if min(ones, twos, threes, fours) > 0:
    y = ones / (ones + 2 * twos)
    estimate = np.array([0.0, 1 - 2 * y * twos / ones, 2 - 3 * y * threes / twos, 3 - 4 * y * fours / threes])
    if np.all(estimate[1:] > 0):
      return estimate
  return np.array([0.0, 0.5, 0.5, 0.5])
