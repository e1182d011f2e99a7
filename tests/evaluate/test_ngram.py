import collections
import itertools

import numpy as np
import pytest

from zoo.evaluate import ngram

TEXT = np.array([ord(c) - ord("a") for c in "abacabadabacabaeabacabadabacabcacbacdbeababc"])
VOCAB = 7  # 5 and 6 never occur


def brute_force(text, symbol, context, order):
  """The recursion of the paper, written out with dictionaries of strings of symbols."""
  text = tuple(text.tolist())

  def grams(n):
    return [text[i : i + n] for i in range(len(text) - n + 1)]

  def counts(n):  # occurrences at the longest order, else distinct left neighbours
    if n == order:
      return collections.Counter(grams(n))
    return collections.Counter(gram[1:] for gram in set(grams(n + 1)))

  def discount(n):
    many = collections.Counter(counts(n)[gram] for gram in set(grams(n)))
    if min(many[k] for k in (1, 2, 3, 4)) > 0:
      y = many[1] / (many[1] + 2 * many[2])
      actual = [k - (k + 1) * y * many[k + 1] / many[k] for k in (1, 2, 3)]
      if min(actual) > 0:
        return lambda c: 0 if c == 0 else min(actual[min(c, 3) - 1], c)
    return lambda c: min(0.5, c)

  def probability(n, context):
    if n == 0:
      return 1 / VOCAB
    context = context[len(context) - (n - 1) :]
    lower = probability(n - 1, context[1:])
    followers = {gram[-1]: counts(n)[gram] for gram in set(grams(n)) if gram[:-1] == tuple(context)}
    total = sum(followers.values())
    if total == 0:
      return lower
    d = discount(n)
    weight = sum(d(c) for c in followers.values()) / total
    return (followers.get(symbol, 0) - d(followers.get(symbol, 0))) / total + weight * lower

  return probability(min(order, len(context) + 1), context)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_equal_the_formula_written_out(order):
  model = ngram.fit(TEXT, VOCAB, order)
  test = np.array([0, 1, 0, 2, 0, 1, 5, 0, 3, 1, 1, 1, 0, 1, 0, 2, 6, 6])
  actual = ngram.log_probabilities(model, test)
  wanted = [brute_force(TEXT, test[i], test[max(0, i - order + 1) : i].tolist(), order) for i in range(len(test))]
  np.testing.assert_allclose(np.exp(actual), wanted, rtol=1e-12)


def test_probabilities_of_all_symbols_sum_to_one_after_any_context():
  model = ngram.fit(TEXT, VOCAB, 4)
  for context in itertools.product(range(VOCAB), repeat=3):
    last = [ngram.log_probabilities(model, np.array([*context, symbol]))[-1] for symbol in range(VOCAB)]
    assert np.exp(last).sum() == pytest.approx(1, abs=1e-12)


def test_longer_contexts_beat_single_symbols_on_text_with_structure():
  words = np.random.default_rng(0).integers(0, 3, 800)
  text = np.stack([words, words + 3, (words + 1) % 3 + 6], 1).reshape(-1)  # a word is three symbols
  train, test = text[:1800], text[1800:]
  nats = [-ngram.log_probabilities(ngram.fit(train, 9, order), test).mean() for order in (1, 2, 3)]
  assert nats[1] < nats[0] / 2
  assert nats[2] < nats[0] / 2


def test_an_unseen_symbol_has_a_probability_above_zero_under_every_order():
  for order in range(1, 6):
    assert np.all(np.isfinite(ngram.log_probabilities(ngram.fit(TEXT, VOCAB, order), np.array([6, 6, 0, 6]))))


def test_a_vocabulary_of_real_size_does_not_overflow():
  text = np.random.default_rng(0).integers(0, 50257, 3000)
  text = np.concatenate([text, text])
  actual = ngram.log_probabilities(ngram.fit(text, 50257, 5), text)
  assert np.exp(actual[3100:]).min() > 0.1  # everything was seen twice, in the same context


def test_a_text_shorter_than_the_order_is_refused():
  with pytest.raises(ValueError, match="order 5 needs at least 5 symbols; the text has 3"):
    ngram.fit(np.arange(3), 7, 5)
