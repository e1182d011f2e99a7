import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.filled import filled
from zoo.layers import masks, norms, positions
from zoo.layers.attention import Attention, dense_attention

BATCH, LENGTH, DIM, HEADS, WIDTH = 2, 5, 7, 6, 4


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def made(attention, *args, seed=0):
  return filled(attention, *args, seed=seed)


def by_hand(query, key, value, seen, bias):
  """The formula for one query of one head, in plain Python."""
  logits = [sum(q * k for q, k in zip(query, row)) / math.sqrt(len(query)) + b for row, b in zip(key, bias)]
  weights = [math.exp(logit) if see else 0.0 for logit, see in zip(logits, seen)]
  return sum(weight / sum(weights) * row for weight, row in zip(weights, value))


def test_dense_attention_is_the_formula():
  query, key, value = normal(0, 2, 3, 5, 4), normal(1, 2, 7, 5, 4), normal(2, 2, 7, 5, 4)
  bias = normal(3, 2, 5, 3, 7)
  valid = jnp.arange(7)[None] < jnp.array([[7], [4]])
  visibility = masks.Visibility(masks.causal, jnp.arange(2, 5)[None], jnp.arange(7)[None], valid)
  out = dense_attention(query, key, value, visibility=visibility, bias=bias)
  q, k, v, b = (np.asarray(array, np.float64) for array in (query, key, value, bias))
  for row, at, head in np.ndindex(2, 3, 5):
    seen = [j <= at + 2 and bool(valid[row, j]) for j in range(7)]
    want = by_hand(q[row, at, head], k[row, :, head], v[row, :, head], seen, b[row, head, at])
    np.testing.assert_allclose(out[row, at, head], want, rtol=2e-5, atol=1e-6)


def test_attention_projects_to_heads_and_back():
  x = normal(0, BATCH, LENGTH, DIM)
  attention = Attention(HEADS, WIDTH)
  params = made(attention, x)
  q, k, v = (
    jnp.einsum("bld,dhw->blhw", x, params[name]["kernel"]) + params[name]["bias"][None, None]
    for name in ("query", "key", "value")
  )
  want = (
    jnp.einsum("blhw,hwd->bld", dense_attention(q, k, v), params["out"]["kernel"]) + params["out"]["bias"][None, None]
  )
  np.testing.assert_allclose(attention.apply({"params": params}, x), want, rtol=1e-5, atol=1e-5)


def test_grouped_query_attention_equals_multi_head_attention_with_repeated_heads():
  x = normal(0, BATCH, LENGTH, DIM)
  grouped, full = (Attention(HEADS, WIDTH, num_kv_heads=n, mask=masks.causal) for n in (2, None))
  params = made(grouped, x)
  repeated = {name: jax.tree.map(lambda a: jnp.repeat(a, 3, axis=-2), params[name]) for name in ("key", "value")}
  np.testing.assert_allclose(
    grouped.apply({"params": params}, x), full.apply({"params": {**params, **repeated}}, x), rtol=1e-5, atol=1e-5
  )


def test_each_head_of_query_and_key_may_be_normed():
  x = normal(0, BATCH, LENGTH, DIM)
  attention = Attention(HEADS, WIDTH, use_bias=False, qk_norm=norms.rms_norm(1e-5))
  params = made(attention, x)
  assert params["query_norm"]["scale"].shape == (WIDTH,)
  q, k, v = (jnp.einsum("bld,dhw->blhw", x, params[name]["kernel"]) for name in ("query", "key", "value"))
  q, k = (
    y / jnp.sqrt((y**2).mean(-1, keepdims=True) + 1e-5) * params[f"{name}_norm"]["scale"][None, None, None]
    for y, name in ((q, "query"), (k, "key"))
  )
  want = jnp.einsum("blhw,hwd->bld", dense_attention(q, k, v), params["out"]["kernel"])
  np.testing.assert_allclose(attention.apply({"params": params}, x), want, rtol=1e-5, atol=1e-5)


def test_the_output_may_do_without_bias():
  params = made(Attention(HEADS, WIDTH, out_bias=False), normal(0, BATCH, LENGTH, DIM))
  assert {name for name in params if "bias" in params[name]} == {"query", "key", "value"}


def test_logits_may_be_changed_before_the_mask():
  query, key, value = normal(0, 2, 3, 5, 4), normal(1, 2, 7, 5, 4), normal(2, 2, 7, 5, 4)
  visibility = masks.Visibility(masks.causal, jnp.arange(2, 5)[None], jnp.arange(7)[None])
  zero = dense_attention(query, key, value, visibility=visibility, on_logits=jnp.zeros_like)
  np.testing.assert_allclose(zero[:, 0], value[:, :3].mean(1), rtol=1e-5, atol=1e-6)


def test_heads_that_do_not_share_evenly_are_refused():
  with pytest.raises(ValueError, match="num_heads 6 is not a multiple of num_kv_heads 4"):
    Attention(HEADS, WIDTH, num_kv_heads=4).init(jax.random.key(0), jnp.zeros((1, 2, 3)))


def test_cross_attention_reads_the_valid_part_of_the_context():
  x, context = normal(0, BATCH, LENGTH, DIM), normal(1, BATCH, 3, 11)
  valid = jnp.array([[True, True, False], [True, False, False]])
  attention = Attention(HEADS, WIDTH)
  params = made(attention, x, context)
  apply = jax.jit(lambda context: attention.apply({"params": params}, x, context, valid=valid))
  out = apply(context)
  np.testing.assert_array_equal(out, apply(jnp.where(valid[:, :, None], context, 99.0)))
  assert abs(out - apply(context.at[:, 0].add(1.0))).min() > 0
  alone = attention.apply({"params": params}, x[1:], context[1:, :1])
  np.testing.assert_allclose(out[1:], alone, rtol=1e-5, atol=1e-5)


def test_nobody_attends_to_padding():
  x = normal(0, BATCH, LENGTH, DIM)
  valid = jnp.arange(LENGTH)[None] < jnp.array([[3], [5]])
  attention = Attention(HEADS, WIDTH)
  params = made(attention, x)
  out = attention.apply({"params": params}, x, valid=valid)
  short = attention.apply({"params": params}, x[:1, :3])
  np.testing.assert_allclose(out[:1, :3], short, rtol=1e-5, atol=1e-5)


def test_a_query_that_sees_no_key_has_a_finite_output_and_gradient():
  x = normal(0, BATCH, LENGTH, DIM)
  attention = Attention(HEADS, WIDTH)
  params = made(attention, x)

  def total(x):
    return attention.apply({"params": params}, x, valid=jnp.zeros((BATCH, LENGTH), bool)).sum()

  value, gradient = jax.value_and_grad(total)(x)
  assert np.isfinite(value) and np.isfinite(gradient).all()


def test_weights_on_request_sum_to_one_over_what_is_seen():
  x = normal(0, BATCH, LENGTH, DIM)
  attention = Attention(HEADS, WIDTH, num_kv_heads=3, mask=masks.causal)
  params = made(attention, x)
  _, state = attention.apply({"params": params}, x, mutable=["intermediates"])
  (weights,) = state["intermediates"]["weights"]
  assert weights.shape == (BATCH, HEADS, LENGTH, LENGTH)
  np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
  assert not jnp.triu(weights, 1).any()


def test_nobody_pays_for_weights_that_nobody_asked_for():
  def kernel(query, key, value, *, on_weights, **_):
    assert on_weights is None
    return query

  attention = Attention(HEADS, WIDTH, kernel=kernel, dropout=0.5)
  x = normal(0, BATCH, LENGTH, DIM)
  params = made(attention, x)
  attention.apply({"params": params}, x)
  with pytest.raises(AssertionError):
    attention.apply({"params": params}, x, mutable=["intermediates"])


def test_dropout_of_weights_acts_in_training_only_and_keeps_their_mean():
  x = jnp.ones((1, 64, DIM))
  attention = Attention(HEADS, WIDTH, dropout=0.25)
  params = made(attention, x)
  plain = attention.apply({"params": params}, x)
  np.testing.assert_array_equal(plain, Attention(HEADS, WIDTH).apply({"params": params}, x, train=True))

  def drawn(key):
    kept = []

    def kernel(query, key, value, *, on_weights, **_):
      kept.append(on_weights(jnp.ones((1, HEADS, 64, 64))))
      return query

    attention.copy(kernel=kernel).apply({"params": params}, x, train=True, rngs={"dropout": key})
    return np.asarray(kept[0])

  weights = drawn(jax.random.key(0))
  np.testing.assert_array_equal(np.unique(weights), np.array([0, 4 / 3], np.float32))
  sigma = math.sqrt(0.75 * 0.25 / weights.size)
  assert abs((weights > 0).mean() - 0.75) < 5 * sigma
  assert (weights != drawn(jax.random.key(1))).any()


PARTS = {
  "causal": dict(mask=masks.causal),
  "grouped": dict(mask=masks.causal, num_kv_heads=2),
  "window": dict(mask=masks.both(masks.causal, masks.window(1))),
  "rotary": dict(mask=masks.causal, rotary=positions.rotary(100.0)),
}


@pytest.mark.parametrize("parts", PARTS)
def test_cached_steps_equal_the_full_pass(parts):
  x = normal(0, BATCH, LENGTH, DIM)
  attention = Attention(HEADS, WIDTH, **PARTS[parts])
  params = made(attention, x)
  bias = positions.alibi(HEADS)
  full = attention.apply({"params": params}, x, bias=bias)
  _, state = attention.apply({"params": params}, jnp.zeros((BATCH, LENGTH + 2, DIM)), mutable=["cache"])
  cache = {**jax.tree.map(jnp.zeros_like, state["cache"]), "positions": jnp.full((BATCH, LENGTH + 2), -1)}
  outs = []
  for piece in (x[:, :2], x[:, 2:3], x[:, 3:]):  # Two tokens, then one, then two.
    y, state = attention.apply({"params": params, "cache": cache}, piece, bias=bias, mutable=["cache"])
    cache = state["cache"]
    outs.append(y)
  np.testing.assert_allclose(jnp.concatenate(outs, 1), full, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(cache["positions"][0], [0, 1, 2, 3, 4, -1, -1])


def test_cached_padding_is_never_seen():
  x = normal(0, 1, LENGTH, DIM)
  attention = Attention(HEADS, WIDTH, mask=masks.causal)
  params = made(attention, x)
  padded = jnp.concatenate([x[:, :1] * 9, x], axis=1)
  valid, places = jnp.arange(LENGTH + 1)[None] > 0, jnp.maximum(jnp.arange(-1, LENGTH), 0)[None]
  out, state = attention.apply({"params": params}, padded, valid=valid, positions=places, mutable=["cache"])
  np.testing.assert_allclose(out[:, 1:], attention.apply({"params": params}, x), rtol=1e-5, atol=1e-5)
  assert state["cache"]["positions"][0, 0] == -1


def test_the_keys_of_a_context_are_computed_once_for_all_steps():
  x, context = normal(0, BATCH, LENGTH, DIM), normal(1, BATCH, 3, 11)
  valid = jnp.array([[True, True, False], [True, False, False]])
  attention = Attention(HEADS, WIDTH, key_bias=False)
  params = made(attention, x, context)
  full = attention.apply({"params": params}, x, context, valid=valid)
  first, state = attention.apply({"params": params}, x[:, :2], context, valid=valid, mutable=["cache"])
  assert set(state["cache"]) == {"context_keys", "context_values"}
  # Whoever computed them again would need the projections, or look at the context.
  left = {name: params[name] for name in ("query", "out")}
  nothing = jnp.full_like(context, jnp.nan)
  second, _ = attention.apply({"params": left, **state}, x[:, 2:], nothing, valid=valid, mutable=["cache"])
  np.testing.assert_allclose(jnp.concatenate([first, second], 1), full, rtol=1e-5, atol=1e-5)


def test_a_cache_is_of_one_context():
  x, context = normal(0, BATCH, LENGTH, DIM), normal(1, BATCH, 3, 11)
  attention = Attention(HEADS, WIDTH)
  params = made(attention, x, context)
  _, state = attention.apply({"params": params}, x, context, mutable=["cache"])
  with pytest.raises(ValueError, match=r"The cache is of a context \[2, 3\], now it is \[2, 2\]"):
    attention.apply({"params": params, **state}, x, context[:, :2], mutable=["cache"])


def test_attention_without_a_mask_keeps_nothing():
  x = normal(0, BATCH, LENGTH, DIM)
  attention = Attention(HEADS, WIDTH)
  params = made(attention, x)
  out, state = attention.apply({"params": params}, x, mutable=["cache"])
  assert not state
  np.testing.assert_array_equal(out, attention.apply({"params": params}, x))


def test_logits_are_scaled_as_asked():
  x = normal(0, BATCH, LENGTH, DIM)
  plain, scaled = Attention(HEADS, WIDTH), Attention(HEADS, WIDTH, scale=1.0)
  params = made(plain, x)
  query = jax.tree.map(lambda array: array * WIDTH**-0.5, params["query"])
  same = scaled.apply({"params": {**params, "query": query}}, x)
  np.testing.assert_allclose(same, plain.apply({"params": params}, x), rtol=1e-5, atol=1e-5)


def test_a_key_may_do_without_bias():
  params = made(Attention(HEADS, WIDTH, key_bias=False), normal(0, BATCH, LENGTH, DIM))
  assert [name for name in params if "bias" not in params[name]] == ["key"]


def test_a_bias_is_an_array_or_a_function_of_positions():
  x = normal(0, BATCH, LENGTH, DIM)
  attention = Attention(HEADS, WIDTH)
  params = made(attention, x)
  rule, places = positions.alibi(HEADS), jnp.arange(LENGTH)[None]
  array = rule(places[:, :, None], places[:, None, :])
  one, other, none = (attention.apply({"params": params}, x, bias=bias) for bias in (rule, array, None))
  np.testing.assert_array_equal(one, other)
  assert abs(one - none).max() > 0.01


def test_bfloat16_computes_its_softmax_in_float32():
  x = normal(0, BATCH, LENGTH, DIM)
  attention = Attention(HEADS, WIDTH, dtype=jnp.bfloat16)
  params = made(attention, x)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
  out, state = attention.apply({"params": params}, x, mutable=["intermediates"])
  assert out.dtype == jnp.bfloat16
  assert state["intermediates"]["weights"][0].dtype == jnp.float32
  exact = Attention(HEADS, WIDTH).apply({"params": params}, x)
  np.testing.assert_allclose(out.astype(jnp.float32), exact, atol=0.03 * float(abs(exact).max()))
