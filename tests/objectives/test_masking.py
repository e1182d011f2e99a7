import functools

import jax
import numpy as np

from zoo.objectives.masked_lm import masked_lm
from zoo.objectives.masking import choose_words

ROWS, LENGTH, VOCAB, MASK = 400, 40, 50, 4
SPECIAL = [0, 1, 2, 3]


def fetched(arrays):
  return {name: np.array(x) for name, x in arrays.items()}


@functools.cache
def preparing(**options):
  """A masked LM's `prepare`, compiled: (batch, rng or None) -> the batch as masked."""
  objective = masked_lm(None, mask_token=MASK, special_tokens=SPECIAL, vocab_size=VOCAB, **options)
  prepare = jax.jit(objective.prepare)
  return lambda batch, rng=None: fetched(prepare(batch, rng))


@functools.cache
def masked(rng=True, **options):
  """-> (batch, the batch as masked) of rows of 40 tokens, a tenth of them special and up to half of a row padding."""
  random = np.random.default_rng(0)
  tokens = np.where(random.random((ROWS, LENGTH)) < 0.1, 1, random.integers(5, VOCAB, (ROWS, LENGTH)))
  batch = {
    "tokens": tokens.astype(np.int32),
    "valid": np.arange(LENGTH)[None] < random.integers(LENGTH // 2, LENGTH + 1, ROWS)[:, None],
    "special": np.arange(LENGTH)[None] < np.ones((ROWS, 1)),
    "word_start": random.random((ROWS, LENGTH)) < 0.5,
  }
  return batch, preparing(**options)(batch, jax.random.key(0) if rng else None)


def candidates(batch):
  return batch["valid"] & ~batch["special"] & ~np.isin(batch["tokens"], [*SPECIAL, MASK])


def chosen_places(batch, masked_batch):
  """bool [rows, length]"""
  places = np.zeros(batch["tokens"].shape, bool)
  for row, (predict, chosen) in enumerate(zip(masked_batch["predict"], masked_batch["chosen"])):
    places[row, predict[chosen > 0]] = True
  return places


def test_a_row_gets_exactly_its_rounded_share_and_at_least_one():
  batch, masked_batch = masked()
  want = np.clip(np.round(0.15 * candidates(batch).sum(1).astype(np.float32)), 1, 6)
  np.testing.assert_array_equal(masked_batch["chosen"].sum(1), want)
  assert masked_batch["predict"].shape == (ROWS, 6)  # ceil(0.15 * 40)


def test_max_predictions_limits_a_row():
  _, masked_batch = masked(max_predictions=3)
  assert masked_batch["chosen"].sum(1).max() == 3 == masked_batch["predict"].shape[1]


def test_special_tokens_and_padding_are_never_chosen():
  for options in ({}, {"whole_word": True}, {"rate": 0.9}, {"rng": False}):
    batch, masked_batch = masked(**options)
    assert not (chosen_places(batch, masked_batch) & ~candidates(batch)).any()


def test_a_row_without_candidates_has_nothing_chosen():
  batch = {"tokens": np.array([[1, 2, 1, 2, 1]]), "word_start": np.ones((1, 5), bool)}
  for whole_word in (False, True):
    masked_batch = preparing(whole_word=whole_word)(batch, jax.random.key(0))
    assert masked_batch["chosen"].sum() == 0
    np.testing.assert_array_equal(masked_batch["inputs"], batch["tokens"])


def test_only_chosen_tokens_change_and_targets_are_what_stood_there():
  for options in ({}, {"whole_word": True, "rate": 0.4}):
    batch, masked_batch = masked(**options)
    places = chosen_places(batch, masked_batch)
    np.testing.assert_array_equal(masked_batch["inputs"][~places], batch["tokens"][~places])
    np.testing.assert_array_equal(
      masked_batch["target"], np.take_along_axis(batch["tokens"], masked_batch["predict"], 1)
    )


def test_every_candidate_is_as_likely_as_another():
  """Counts of 4,000 draws against a binomial: 40 places, each beyond 5 standard deviations once in 1.7 million."""
  batch = {"tokens": np.full((4000, LENGTH), 7)}
  batch["tokens"][:, 0] = 1
  counts = chosen_places(batch, preparing()(batch, jax.random.key(1))).sum(0)
  share = 6 / 39
  np.testing.assert_allclose(counts[1:], 4000 * share, atol=5 * np.sqrt(4000 * share * (1 - share)))


def test_eight_tenths_are_masked_one_tenth_random_one_tenth_unchanged():
  """Shares of about 1,900 tokens, 5 standard errors: a right draw fails once in a million."""
  batch, masked_batch = masked()
  places = chosen_places(batch, masked_batch)
  before, after = batch["tokens"][places], masked_batch["inputs"][places]
  n = len(before)
  same = 0.1 + 0.1 / VOCAB  # A random token may be the same one.
  for share, got in ((0.8 + 0.1 / VOCAB, (after == MASK).mean()), (same, (after == before).mean())):
    np.testing.assert_allclose(got, share, atol=5 * np.sqrt(share * (1 - share) / n))


def test_random_tokens_come_from_the_whole_vocabulary():
  batch, masked_batch = masked(rate=0.9, mask_rate=0.0, random_rate=1.0)
  after = masked_batch["inputs"][chosen_places(batch, masked_batch)]
  counts = np.bincount(after, minlength=VOCAB)
  assert len(counts) == VOCAB
  np.testing.assert_allclose(counts, len(after) / VOCAB, atol=5 * np.sqrt(len(after) / VOCAB))


def words_of(starts, fit):
  """Lists of places: a word begins where `starts` says and ends before the next or before a token that does not fit."""
  words, open_word = [], False
  for place in range(len(starts)):
    if not fit[place]:
      open_word = False
    elif starts[place] or not open_word:
      words.append([place])
      open_word = True
    else:
      words[-1].append(place)
  return words


def test_whole_words_are_chosen_whole_and_fill_the_budget():
  batch, masked_batch = masked(whole_word=True, rate=0.4)
  places, fit = chosen_places(batch, masked_batch), candidates(batch)
  for row in range(ROWS):
    words = words_of(batch["word_start"][row], fit[row])
    assert all(places[row, word].all() or not places[row, word].any() for word in words)
    left = np.clip(np.round(np.float32(0.4) * fit[row].sum()), 1, 16) - places[row].sum()
    assert left >= 0
    assert all(len(word) > left for word in words if not places[row, word].any())  # None that is left would fit.


def test_a_word_that_is_too_long_is_passed_over():
  ones = np.ones(7, bool)
  starts = np.array([1, 0, 0, 0, 0, 1, 0], bool)
  choose = jax.jit(choose_words, static_argnums=4)
  for seed in range(5):
    predict, chosen = choose(jax.random.key(seed), ones, starts, 3, 3)
    assert sorted(np.array(predict)[np.array(chosen)].tolist()) == [5, 6]


def test_evaluation_masks_a_row_by_its_tokens_alone():
  batch, masked_batch = masked(rng=False)
  some = {name: x[7:9] for name, x in batch.items()}
  again = preparing()(some)
  np.testing.assert_array_equal(again["inputs"], masked_batch["inputs"][7:9])
  other = preparing(eval_seed=1)(some)
  assert (other["inputs"] != again["inputs"]).any()
  assert len({tuple(row) for row in masked_batch["predict"]}) > ROWS / 2  # Rows differ from each other.


def test_training_masks_anew_with_every_rng():
  batch, masked_batch = masked()
  again = preparing()(batch, jax.random.key(9))
  assert (again["predict"] != masked_batch["predict"]).mean() > 0.5
