import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers.block_patterns import Blocks, Listed
from zoo.layers.block_sparse import block_attention, random_blocks
from zoo.layers.patterns import GlobalTokens, Window

SIZE, COUNT, HEADS = 3, 9, 2
RNG = np.random.default_rng(0)
QUERY, KEY, VALUE, MIX = RNG.standard_normal((4, 2, SIZE * COUNT, HEADS, 5)).astype(np.float32)
VALID = RNG.random((2, SIZE * COUNT)) < 0.8


def times(random, repeats):
  """How often each query counts each key: float [heads, length, length]"""
  table = tuple(tuple(tuple(row) for row in [[], *head, []]) for head in random.tolist())
  seen = Window(1, 1) | GlobalTokens((0, COUNT - 1))
  places = np.arange(SIZE * COUNT)
  pattern = Blocks(SIZE, seen)(places[:, None], places[None]).astype(float)
  drawn = Blocks(SIZE, Listed(table))(places[:, None], places[None]) if random.size else np.zeros(pattern.shape)
  first = np.zeros(pattern.shape)
  first[SIZE:-SIZE, :SIZE] = repeats
  return pattern + drawn + first


def dense(query, key, value, counts):
  logits = jnp.einsum("bqhd,bkhd->bhqk", query, key) * query.shape[-1] ** -0.5
  weights = jnp.where(VALID[:, None, None], jnp.exp(logits) * counts, 0)
  return jnp.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.parametrize("case", ["random", "evaluation", "neither"])
def test_it_is_the_dense_formula_over_the_pattern(case):
  random = random_blocks(3, HEADS, SIZE * COUNT, SIZE, 1, 99)
  options = {"random": {"random": random}, "evaluation": {"repeats": 2}, "neither": {}}[case]
  counts = times(options.get("random", random[..., :0]), options.get("repeats", 0))

  def blocks(*arrays):
    y = block_attention(*arrays, size=SIZE, valid=jnp.asarray(VALID), **options)
    return (y * MIX).sum(), y

  def formula(*arrays):
    y = dense(*arrays, np.broadcast_to(counts, (1, HEADS, *counts.shape[-2:])).astype(np.float32))
    return (y * MIX).sum(), y

  both = jax.jit(lambda *arrays: [jax.value_and_grad(f, (0, 1, 2), has_aux=True)(*arrays) for f in (blocks, formula)])
  ((_, y), grads), ((_, expected), expected_grads) = both(QUERY, KEY, VALUE)
  np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * float(abs(expected).max()))
  for one, other in zip(grads, expected_grads, strict=True):
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * float(abs(other).max()))


def test_random_blocks_are_no_neighbours_differ_by_layer_and_head_and_stay():
  tables = random_blocks(0, HEADS, 30 * SIZE, SIZE, 3, 99)
  assert tables.shape == (HEADS, 28, 3)
  rows = np.arange(1, 29)[None, :, None]
  assert (abs(tables - rows) > 1).all() and tables.min() > 0
  assert (np.diff(np.sort(tables), axis=-1) > 0).all()
  assert not np.array_equal(tables[0], tables[1])
  assert not np.array_equal(tables, random_blocks(1, HEADS, 30 * SIZE, SIZE, 3, 99))
  random_blocks.cache_clear()
  np.testing.assert_array_equal(tables, random_blocks(0, HEADS, 30 * SIZE, SIZE, 3, 99))


def test_twice_the_length_takes_twice_the_memory():
  def bytes_of(length):
    loss = lambda *arrays: block_attention(*arrays, size=16, random=random_blocks(0, 1, length, 16, 2, 9)).sum()
    like = jax.ShapeDtypeStruct((1, length, 1, 8), jnp.float32)
    return jax.jit(jax.grad(loss, (0, 1, 2))).lower(like, like, like).compile().memory_analysis().temp_size_in_bytes

  assert bytes_of(2000 * 16) < 2.2 * bytes_of(1000 * 16)


def test_blocks_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match="9 random blocks of 128 tokens do not fit 8 blocks. Lower num_random or size"):
    random_blocks(0, 1, 1024, 128, 9, 1024)
