import cmath
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.filled import filled
from zoo.layers import masks, positions
from zoo.layers.attention import Attention
from zoo.layers.sequence import SequenceInfo, segments_of


def test_learned_positions_slice_or_look_up():
  learned = positions.Learned(7, 3)
  table = np.random.default_rng(0).standard_normal((7, 3), np.float32)
  params = {"params": {"embedding": table}}
  look_up = jax.jit(learned.apply, static_argnums=1)
  np.testing.assert_array_equal(look_up(params, 5)[0], table[:5])
  np.testing.assert_array_equal(look_up(params, 2, np.array([[4, 1]]))[0], table[[4, 1]])


def test_learned_positions_may_begin_at_a_later_row():
  learned = positions.Learned(7, 3, offset=2)
  table = np.random.default_rng(0).standard_normal((9, 3), np.float32)
  params = {"params": {"embedding": table}}
  look_up = jax.jit(learned.apply, static_argnums=1)
  assert jax.eval_shape(lambda: learned.init(jax.random.key(0), 5))["params"]["embedding"].shape == (9, 3)
  np.testing.assert_array_equal(look_up(params, 5)[0], table[2:7])
  np.testing.assert_array_equal(look_up(params, 2, np.array([[4, -1]]))[0], table[[6, 1]])


def test_a_text_begins_where_positions_of_real_tokens_do_not_rise():
  assert segments_of(jnp.array([[0, 1, 2, 0, 1, 1, 7]])).tolist() == [[0, 0, 0, 1, 1, 2, 2]]
  assert segments_of(jnp.array([[3]])).tolist() == [[0]]
  # Counted over real tokens: padding on the left, a gap, padding on the right; a row for all.
  valid = jnp.array([[False, False, True, True, False, True, True, False]])
  counted = jnp.maximum(jnp.cumsum(valid, axis=1) - 1, 0)
  assert segments_of(counted, valid).tolist() == [[0] * 8]
  packed = jnp.array([[0, 0, 0, 1, 0, 0, 1, 1]])
  assert segments_of(packed, valid).tolist() == [[0, 0, 0, 0, 0, 1, 1, 1]]
  assert segments_of(packed, jnp.repeat(valid, 2, axis=0)).tolist() == [[0, 0, 0, 0, 0, 1, 1, 1]] * 2


def test_learned_positions_end_at_max_length():
  with pytest.raises(ValueError, match="length 9 exceeds max_length 4. Raise max_length or crop the input."):
    positions.Learned(4, 3).init(jax.random.key(0), 9)


@pytest.mark.parametrize("interleaved", [True, False])
def test_sinusoids_are_the_formula(interleaved):
  dim = 6
  out = positions.Sinusoidal(dim, interleaved=interleaved).apply({}, 11)
  for place, i in np.ndindex(11, dim // 2):
    angle = place / 10_000 ** (2 * i / dim)
    sine, cosine = (2 * i, 2 * i + 1) if interleaved else (i, dim // 2 + i)
    np.testing.assert_allclose(out[0, place, sine], math.sin(angle), atol=1e-6)
    np.testing.assert_allclose(out[0, place, cosine], math.cos(angle), atol=1e-6)


def test_sinusoids_of_given_places_are_rows_of_the_whole():
  sinusoidal = positions.Sinusoidal(6)
  np.testing.assert_array_equal(sinusoidal.apply({}, 2, jnp.array([[4, 1]]))[0], sinusoidal.apply({}, 5)[0, [4, 1]])


def test_a_table_of_sinusoids_is_exact_far_away_and_ends_at_max_length():
  table = positions.Sinusoidal(6, max_length=5000)
  out = table.apply({}, 1, jnp.array([[4999]]))
  want = [f(4999 / 10_000 ** (2 * i / 6)) for i in range(3) for f in (math.sin, math.cos)]
  np.testing.assert_allclose(out[0, 0], want, atol=1e-7)
  np.testing.assert_array_equal(table.apply({}, 5000)[:, 4999:], out)
  with pytest.raises(ValueError, match="length 5001 exceeds max_length 5000. Raise max_length or crop the input."):
    table.apply({}, 5001)


def test_odd_widths_have_no_pairs():
  with pytest.raises(ValueError, match="dim 5 is odd"):
    positions.Sinusoidal(5).apply({}, 3)
  with pytest.raises(ValueError, match="head_dim 3 is odd"):
    positions.rotary()(jnp.zeros((1, 2, 1, 3)), jnp.zeros((1, 2), jnp.int32))


def test_rotary_multiplies_complex_numbers():
  x = np.random.default_rng(0).standard_normal((1, 1, 1, 6), np.float32)
  turned = np.asarray(jax.jit(positions.rotary(100.0))(x, np.array([[13]])))[0, 0, 0]
  for i in range(3):
    want = complex(x[0, 0, 0, i], x[0, 0, 0, i + 3]) * cmath.exp(13j * 100.0 ** (-2 * i / 6))
    np.testing.assert_allclose([turned[i], turned[i + 3]], [want.real, want.imag], rtol=1e-5)


def test_rotary_products_depend_on_the_distance_only():
  query, key = np.random.default_rng(0).standard_normal((2, 1, 5, 3, 8), np.float32)
  turn, places = jax.jit(positions.rotary()), np.arange(5)[None]

  def logits(shift):
    return np.einsum("bqhd,bkhd->bhqk", turn(query, places + shift), turn(key, places + shift))

  np.testing.assert_allclose(logits(0), logits(1000), rtol=1e-3, atol=1e-3)
  assert abs(logits(0) - np.einsum("bqhd,bkhd->bhqk", query, key)).max() > 0.1


def t5_bucket(distance, num_buckets, max_distance, bidirectional):
  """As the paper's code has it, for one distance, in plain Python."""
  bucket = 0
  if bidirectional:
    num_buckets //= 2
    if distance > 0:
      bucket += num_buckets
    distance = abs(distance)
  else:
    distance = max(-distance, 0)
  exact = num_buckets // 2
  if distance < exact:
    return bucket + distance
  far = exact + int(math.log(distance / exact) / math.log(max_distance / exact) * (num_buckets - exact))
  return bucket + min(far, num_buckets - 1)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("num_buckets, max_distance", [(32, 128), (10, 37)])
def test_relative_buckets_are_those_of_t5(bidirectional, num_buckets, max_distance):
  distances = np.arange(-300, 301)
  want = [t5_bucket(int(d), num_buckets, max_distance, bidirectional) for d in distances]
  got = positions.relative_bucket(distances, num_buckets, max_distance, bidirectional=bidirectional)
  # Where the logarithm is a whole number, float32 may round to either side.
  edge = np.array([d for d, a, b in zip(distances, got, want) if a != b])
  assert set(abs(edge)) <= {16, 32, 64, 128}
  assert max(want) == num_buckets - 1


def test_relative_bias_looks_up_one_number_per_head_and_bucket():
  module = positions.RelativeBias(3, num_buckets=8, max_distance=20)
  places = np.arange(6)[None]
  pairs = places[:, :, None], places[:, None, :]
  params = jax.device_get(filled(module, *pairs))
  bias = np.asarray(jax.jit(module.apply)({"params": params}, *pairs))
  assert bias.shape == (1, 3, 6, 6)
  table = params["embedding"]
  for query, key in np.ndindex(6, 6):
    np.testing.assert_array_equal(bias[0, :, query, key], table[t5_bucket(key - query, 8, 20, True)])


def test_relative_bias_fits_a_cached_attention():
  x = np.random.default_rng(0).standard_normal((2, 5, 7), np.float32)
  bias = positions.RelativeBias(3, 8, 20, bidirectional=False)
  places = np.arange(5)[None]
  pairs = places[:, :, None], places[:, None, :]
  table = {"params": filled(bias, *pairs)}
  rule = bias.apply(table, method="rule")
  attention = Attention(3, 4, mask=masks.causal)
  params = {"params": filled(attention, x)}
  cached, _ = jax.jit(lambda: attention.apply(params, x, bias=rule, mutable=["cache"]))()
  plain = jax.jit(lambda: attention.apply(params, x, bias=rule))()
  np.testing.assert_allclose(cached, plain, rtol=1e-6)
  shared = jax.jit(bias.apply)(table, *pairs)
  np.testing.assert_array_equal(jax.jit(lambda: attention.apply(params, x, bias=shared))(), plain)


def test_relative_buckets_at_the_edges_are_those_of_exact_logarithms():
  # log(10) / log(100) * 2 is 1; a device that multiplies by a reciprocal says less.
  assert positions.relative_bucket(jnp.array([-10, -9]), 6, 100, bidirectional=True).tolist() == [2, 1]


def test_alibi_slopes_are_those_of_the_paper():
  def slopes(num_heads):
    return -positions.alibi(num_heads)(jnp.array([[[1]]]), jnp.array([[[0]]]))[0, :, 0, 0]

  np.testing.assert_allclose(slopes(8), [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256])
  np.testing.assert_allclose(slopes(3), [2**-4, 2**-8, 2**-2])
  np.testing.assert_allclose(slopes(1), [2**-8])


def test_alibi_grows_with_the_distance():
  places = jnp.arange(5)[None]
  bias = positions.alibi(2)(places[:, :, None], places[:, None, :])
  np.testing.assert_allclose(bias[0, 0, 3], -(2.0**-4) * np.array([3, 2, 1, 0, 1]))


@pytest.mark.parametrize("places", [None, np.array([[0, 1, 0, 1, 0]])])
def test_a_text_that_goes_on_behind_another_hides_its_future(places):
  x, ids = np.random.default_rng(0).standard_normal((1, 5, 7), np.float32), np.array([[1, 1, 2, 2, 1]])
  attention = Attention(3, 4, mask=masks.causal)
  params = filled(attention, x)
  run = jax.jit(lambda x: attention.apply({"params": params}, x, info=SequenceInfo(None, places, ids)))
  moved = abs(np.asarray(run(x) - run(x + 9 * (np.arange(5) == 4)[None, :, None]))).max((0, 2))
  assert not moved[:4].any()
  assert moved[4] > 1e-3
  moved = abs(np.asarray(run(x) - run(x + 9 * (np.arange(5) == 0)[None, :, None]))).max((0, 2))
  assert (moved > 1e-3).tolist() == [True, True, False, False, True]
