import jax.numpy as jnp
import numpy as np

from zoo.layers import masks

PLACES = jnp.arange(5)[None]


def visible(rule, valid=None):
  return np.asarray(masks.AttentionMask(rule, PLACES, PLACES, valid).array())[:, 0]


def test_causal_sees_itself_and_the_past():
  np.testing.assert_array_equal(visible(masks.causal)[0], np.tril(np.ones((5, 5))))


def test_window_sees_its_neighbours():
  np.testing.assert_array_equal(visible(masks.window(1))[0].sum(1), [2, 3, 3, 3, 2])


def test_both_allows_what_each_allows():
  both = visible(masks.both(masks.causal, masks.window(2)))
  np.testing.assert_array_equal(both, visible(masks.causal) & visible(masks.window(2)))


def test_padding_is_seen_by_nobody():
  valid = jnp.array([[True] * 5, [True, True, False, False, True]])
  allowed = visible(masks.causal, valid)
  np.testing.assert_array_equal(allowed[0], visible(masks.causal)[0])
  assert not allowed[1][:, 2:4].any() and allowed[1][4, 4]


def test_without_a_rule_or_padding_there_is_no_array():
  assert masks.AttentionMask(None, PLACES, PLACES).array() is None


def test_the_same_rule_is_the_same_function():
  assert masks.window(3) is masks.window(3)
  assert masks.both(masks.causal, masks.window(3)) is masks.both(masks.causal, masks.window(3))


def test_texts_of_one_row_do_not_see_each_other():
  ids = jnp.array([[1, 1, 2, 2, 2]])
  visible = masks.AttentionMask(masks.causal, PLACES[:, :5], PLACES[:, :5], None, ids, ids).array()[0, 0]
  np.testing.assert_array_equal(
    visible, [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 1]]
  )
