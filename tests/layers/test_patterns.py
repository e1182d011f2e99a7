import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers.block_patterns import Blocks, Listed, random
from zoo.layers.image_patterns import Columns, Convolution, Rows
from zoo.layers.patterns import ALL, NONE, GlobalTokens, Window, window

LENGTH = 37
PLACES = np.arange(LENGTH, dtype=np.int32)
Q, K = PLACES[:, None], PLACES[None]
TEXT = GlobalTokens(range(7), sees=False)
OF_HEADS = random(2, 8, seed=0, heads=3)
PATTERNS = {
  "window": Window(4, 2),
  "dilated": window(6, dilation=3),
  "everything": Window(None, None),
  "the future": Window(0, None),
  "global tokens": GlobalTokens((0, 1, 9, -2)) | Window(1, 1),
  "blocks": Blocks(5, Window(1, 1) | GlobalTokens((0, -1)) | random(2, 8, seed=0)),
  "blocks of heads": Blocks(5, Window(1, 1) | OF_HEADS),
  "rows": (TEXT | Rows(6, 7)) & Window(None, 0),
  "columns": (TEXT | Columns(6, 7)) & Window(None, 0),
  "convolution": Convolution(6, 7, 3, 2) | Window(0, 0),
}


def pairs(pattern):
  return np.asarray(pattern.at(LENGTH)(Q, K))


@pytest.mark.parametrize(
  "convention, back, ahead",
  [
    ("both sides", 2, 2),
    ("each side", 4, 4),
    ("each side, exclusive", 3, 3),
    ("causal", 3, 0),
    ("causal, exclusive", 4, 0),
  ],
)
def test_a_convention_says_whom_a_window_of_four_counts(convention, back, ahead):
  keys = np.flatnonzero(window(4, convention)(np.array([[9]]), K)[0])
  np.testing.assert_array_equal(keys, np.arange(9 - back, 9 + ahead + 1))


def test_a_dilated_window_sees_every_third():
  np.testing.assert_array_equal(np.flatnonzero(pairs(window(4, dilation=3))[9]), [3, 6, 9, 12, 15])


def test_global_tokens_see_all_and_are_seen_by_all():
  keys = pairs(GlobalTokens((2, -1)))
  expected = np.zeros((LENGTH, LENGTH), bool)
  expected[[2, LENGTH - 1]] = expected[:, [2, LENGTH - 1]] = True
  np.testing.assert_array_equal(keys, expected)
  np.testing.assert_array_equal(pairs(GlobalTokens((2, -1), seen=False)), expected & np.isin(Q, [2, LENGTH - 1]))


def test_an_image_sees_its_row_its_column_or_its_square():
  token = np.array([[7 + 6 * 2 + 1]])  # Row 2, column 1 of an image after 7 tokens of text.
  at = lambda pattern: [divmod(int(place) - 7, 6) for place in np.flatnonzero(pattern(token, K)[0])]
  assert at(Rows(6, 7)) == [(2, column) for column in range(6)]
  assert at(Columns(6, 7)) == [(row, 1) for row in range(5)]
  assert at(Convolution(6, 7, 3)) == [(row, column) for row in (1, 2, 3) for column in (0, 1, 2)]
  assert at(Convolution(6, 7, 3, 2)) == [(row, column) for row in (0, 2, 4) for column in (1, 3)]
  assert pairs(TEXT | Rows(6, 7))[:, :7].all()


def test_random_keys_are_distinct_and_those_of_the_seed():
  table = random(3, 11, seed=5, heads=2).table
  assert all(len(set(keys)) == 3 and max(keys) < 11 for head in table for keys in head) and table[0] != table[1]
  assert random(3, 11, seed=5, heads=2) == random(3, 11, seed=5, heads=2) != random(3, 11, seed=6, heads=2)


@pytest.mark.parametrize("name", PATTERNS)
def test_tiles_agree_with_the_pairs(name):
  pattern = PATTERNS[name].at(LENGTH)
  for size in (4, 5, 10):
    count = -(-LENGTH // size)
    places = np.arange(size * count)
    keys = np.asarray(pattern(places[:, None], places[None]))
    grid = np.moveaxis(keys.reshape(*keys.shape[:-2], count, size, count, size), -3, -2)
    tiles = pattern.tiles(size, count)
    assert not (grid.any((-2, -1)) & (tiles == NONE)).any()  # No visible pair is skipped.
    assert grid[tiles == ALL].all()
    if name in ("window", "everything", "the future", "rows"):
      np.testing.assert_array_equal(tiles != NONE, grid.any((-2, -1)))


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_is_the_same_for_numpy_and_in_a_program(name):
  pattern = PATTERNS[name].at(LENGTH)
  np.testing.assert_array_equal(jax.jit(pattern)(jnp.asarray(Q), jnp.asarray(K)), pairs(pattern))


def test_patterns_are_plain_values():
  assert hash(Window(1, 2) | GlobalTokens((0,))) == hash(Window(1, 2) | GlobalTokens((0,)))
  assert Window(None, 0) & Window(5, 5) == Window(5, 0)
  assert (Window(6, 6, 3) & Window(None, 0)) == Window(6, 0, 3)


@pytest.mark.parametrize(
  "make, problem",
  [
    (lambda: window(7), "window is 7. It must be even"),
    (lambda: window(0, "causal"), "window is 0. It must be an int of at least 1."),
    (lambda: window(4, "sideways"), "convention is 'sideways'. It may be: both sides; each side;"),
    (lambda: Window(2.5, 0), "back is 2.5. It must be an int of at least 0."),
    (lambda: Window(-1, 0), "back is -1."),
    (lambda: Window(1, 1, 0), "dilation is 0."),
    (lambda: GlobalTokens(()), "is empty"),
    (lambda: GlobalTokens((True,)), "Global tokens are at True."),
    (lambda: GlobalTokens((3, 40)).at(LENGTH), "a global token at 40, beyond the 37 tokens"),
    (lambda: GlobalTokens((-38,)).at(LENGTH), "a global token at -38, beyond the 37 tokens"),
    (lambda: GlobalTokens((-1,))(Q, K), r"count from the end. Use at\(length\)"),
    (lambda: Convolution(6, kernel=4), "kernel is 4. It must be odd"),
    (lambda: Rows(0), "width is 0."),
    (lambda: Blocks(0, Window(1, 1)), "size is 0."),
    (lambda: random(5, 4, seed=0), "count is 5, more than the 4 keys"),
  ],
)
def test_what_is_no_pattern_is_refused_in_a_line(make, problem):
  with pytest.raises(ValueError, match=problem) as error:
    make()
  assert "\n" not in str(error.value)


def test_a_pattern_combines_with_patterns_alone():
  with pytest.raises(TypeError, match="3 is not a pattern"):
    Window(1, 1) | 3


def test_listed_keys_are_those_of_the_table():
  keys = pairs(Listed(((0, 2), (), (5,))))
  assert sorted(zip(*map(list, np.nonzero(keys)))) == [(0, 0), (0, 2), (2, 5)]
