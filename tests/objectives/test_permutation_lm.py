import jax
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError
from zoo.objectives.permutation_lm import permutation_lm

MODEL = zoo.build("xlnet", vocab_size=23, dim=6, depth=2, num_heads=3)
TOKENS = np.random.default_rng(0).integers(3, 23, (4, 40))


def test_a_share_of_the_candidates_is_predicted_in_spans_and_what_is_padded_never():
  valid = np.arange(40)[None] < np.array([40, 31, 20, 1])[:, None]
  tokens = np.where(np.arange(40) == 5, 1, TOKENS)
  objective = permutation_lm(MODEL, rate=0.3, longest_span=4, special_tokens=(1,))
  batch = objective.prepare({"tokens": tokens, "valid": valid}, jax.random.key(0))
  chosen, predict = np.asarray(batch["chosen"], bool), np.asarray(batch["predict"])
  candidates = valid & (tokens != 1)
  most = np.maximum(np.round(0.3 * candidates.sum(1)), 1)
  assert (chosen.sum(1) <= most).all() and (chosen.sum(1) >= np.maximum(most - 3, 1)).all()
  for row in range(4):
    places = np.sort(predict[row][chosen[row]])
    assert len(set(places)) == len(places) and candidates[row][places].all()
    np.testing.assert_array_equal(batch["target"][row][chosen[row]], tokens[row][predict[row][chosen[row]]])
  together = np.diff(np.sort(np.where(chosen, predict, 999), axis=1), axis=1) == 1
  assert together.mean() > 0.3  # Of single tokens about as many would be neighbours as are predicted.


def test_each_predicted_token_sees_the_rest_and_those_whose_turn_is_earlier():
  batch = permutation_lm(MODEL, rate=0.3).prepare({"tokens": TOKENS}, jax.random.key(1))
  for row in range(4):
    places = np.asarray(batch["predict"][row])[np.asarray(batch["chosen"][row], bool)]
    sees = np.asarray(batch["sees"][row])
    rest = np.setdiff1d(np.arange(40), places)
    assert sees[:, rest].all() and not sees[np.ix_(rest, places)].any()
    among = sees[np.ix_(places, places)]
    assert sorted(among.sum(1)) == list(range(len(places)))  # A strict order: the first sees none, the last all others.
    assert not (among & among.T).any()


def test_what_a_token_does_not_see_does_not_move_its_loss():
  params = filled(MODEL, *MODEL.example())
  batch = permutation_lm(MODEL, rate=0.3).prepare({"tokens": TOKENS}, jax.random.key(1))
  call = lambda tokens: MODEL.apply({"params": params}, tokens, sees=batch["sees"], predict=batch["predict"])["mlm"]
  before = np.asarray(jax.jit(call)(TOKENS))
  row, slot = 0, 2
  place = int(batch["predict"][row, slot])
  changed = TOKENS.copy()
  changed[row, place] = 3 + (changed[row, place] - 2) % 20
  moved = abs(np.asarray(jax.jit(call)(changed)) - before)[row].max(-1)
  sees_it = np.asarray(batch["sees"][row])[np.asarray(batch["predict"][row]), place]
  real = np.asarray(batch["chosen"][row], bool)
  assert (moved[real & ~sees_it] < 1e-6).all() and (moved[real & sees_it] > 1e-6).all()


def test_without_a_key_the_order_is_a_function_of_the_row():
  objective = permutation_lm(MODEL)
  whole, part = objective.prepare({"tokens": TOKENS}), objective.prepare({"tokens": TOKENS[2:3]})
  np.testing.assert_array_equal(whole["predict"][2:3], part["predict"])
  np.testing.assert_array_equal(whole["sees"][2:3], part["sees"])


@pytest.mark.parametrize("options", [{"rate": 0.0}, {"rate": 1.1}, {"longest_span": 0}], ids=str)
def test_options_out_of_range_are_refused(options):
  name, value = next(iter(options.items()))
  with pytest.raises(UserError, match=f"permutation_lm.{name} is {value}. It must be"):
    permutation_lm(MODEL, **options)
