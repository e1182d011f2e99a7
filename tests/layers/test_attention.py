import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.filled import filled
from zoo.layers import masks, norms, positions
from zoo.layers.attention import Attention, dense_attention
from zoo.layers.sequence import SequenceInfo

BATCH, LENGTH, DIM, HEADS, WIDTH = 2, 5, 7, 6, 4


def normal(seed, *shape):
  return np.random.default_rng(seed).standard_normal(shape, np.float32)


def parameters(attention, *args, seed=0):
  return jax.device_get(filled(attention, *args, seed=seed))


@functools.partial(jax.jit, static_argnums=0, static_argnames=("rule", "train", "mutable"))
def apply(attention, params, x, context=None, *, rule=None, cache=None, valid=None, positions=None, **keywords):
  """`attention.apply` as one program; `rule` is a bias that is a function, `valid` is of the keys."""
  variables = {"params": params} | ({} if cache is None else {"cache": cache})
  keywords |= {} if rule is None else {"bias": rule}
  info, context_info = SequenceInfo(valid if context is None else None, positions), SequenceInfo(valid)
  return attention.apply(variables, x, context, info=info, context_info=context_info, **keywords)


def by_hand(query, key, value, visible, bias):
  """The formula for one query of one head, in plain Python."""
  logits = [sum(q * k for q, k in zip(query, row)) / math.sqrt(len(query)) + b for row, b in zip(key, bias)]
  weights = [math.exp(logit) if see else 0.0 for logit, see in zip(logits, visible)]
  return sum(weight / sum(weights) * row for weight, row in zip(weights, value))


def test_dense_attention_is_the_formula():
  query, key, value = normal(0, 2, 3, 5, 4), normal(1, 2, 7, 5, 4), normal(2, 2, 7, 5, 4)
  bias = normal(3, 2, 5, 3, 7)
  valid = np.arange(7)[None] < np.array([[7], [4]])
  mask = masks.AttentionMask(masks.causal, np.arange(2, 5)[None], np.arange(7)[None], valid)
  out = np.asarray(jax.jit(functools.partial(dense_attention, mask=mask))(query, key, value, bias=bias))
  q, k, v, b = (np.asarray(array, np.float64) for array in (query, key, value, bias))
  for row, at, head in np.ndindex(2, 3, 5):
    visible = [j <= at + 2 and bool(valid[row, j]) for j in range(7)]
    want = by_hand(q[row, at, head], k[row, :, head], v[row, :, head], visible, b[row, head, at])
    np.testing.assert_allclose(out[row, at, head], want, rtol=2e-5, atol=1e-6)


def test_attention_projects_to_heads_and_back():
  x = normal(0, BATCH, LENGTH, DIM)
  attention = Attention(HEADS, WIDTH)
  params = parameters(attention, x)
  q, k, v = (
    np.einsum("bld,dhw->blhw", x, params[name]["kernel"]) + params[name]["bias"] for name in ("query", "key", "value")
  )
  want = np.einsum("blhw,hwd->bld", jax.jit(dense_attention)(q, k, v), params["out"]["kernel"]) + params["out"]["bias"]
  np.testing.assert_allclose(apply(attention, params, x), want, rtol=1e-5, atol=1e-5)


def test_grouped_query_attention_equals_multi_head_attention_with_repeated_heads():
  x = normal(0, BATCH, LENGTH, DIM)
  grouped, full = (Attention(HEADS, WIDTH, num_kv_heads=n, mask=masks.causal) for n in (2, None))
  params = parameters(grouped, x)
  repeated = {name: jax.tree.map(lambda a: np.repeat(a, 3, axis=-2), params[name]) for name in ("key", "value")}
  np.testing.assert_allclose(apply(grouped, params, x), apply(full, {**params, **repeated}, x), rtol=1e-5, atol=1e-5)


def test_each_head_of_query_and_key_may_be_normed():
  x = normal(0, BATCH, LENGTH, DIM)
  attention = Attention(HEADS, WIDTH, use_bias=False, qk_norm=norms.rms_norm(1e-5))
  params = parameters(attention, x)
  assert params["query_norm"]["scale"].shape == (WIDTH,)
  q, k, v = (np.einsum("bld,dhw->blhw", x, params[name]["kernel"]) for name in ("query", "key", "value"))
  q, k = (
    y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-5) * params[f"{name}_norm"]["scale"]
    for y, name in ((q, "query"), (k, "key"))
  )
  want = np.einsum("blhw,hwd->bld", jax.jit(dense_attention)(q, k, v), params["out"]["kernel"])
  np.testing.assert_allclose(apply(attention, params, x), want, rtol=1e-5, atol=1e-5)


def test_the_output_may_do_without_bias():
  params = parameters(Attention(HEADS, WIDTH, out_bias=False), normal(0, BATCH, LENGTH, DIM))
  assert {name for name in params if "bias" in params[name]} == {"query", "key", "value"}


def test_logits_may_be_changed_before_the_mask():
  query, key, value = normal(0, 2, 3, 5, 4), normal(1, 2, 7, 5, 4), normal(2, 2, 7, 5, 4)
  mask = masks.AttentionMask(masks.causal, np.arange(2, 5)[None], np.arange(7)[None])
  attend = functools.partial(dense_attention, mask=mask, on_logits=jnp.zeros_like)
  zero = np.asarray(jax.jit(attend)(query, key, value))
  np.testing.assert_allclose(zero[:, 0], value[:, :3].mean(1), rtol=1e-5, atol=1e-6)


def test_heads_that_do_not_share_evenly_are_refused():
  with pytest.raises(ValueError, match="num_heads 6 is not a multiple of num_kv_heads 4"):
    Attention(HEADS, WIDTH, num_kv_heads=4).init(jax.random.key(0), jnp.zeros((1, 2, 3)))


def test_cross_attention_reads_the_valid_part_of_the_context():
  x, context = normal(0, BATCH, LENGTH, DIM), normal(1, BATCH, 3, 11)
  valid = np.array([[True, True, False], [True, False, False]])
  attention = Attention(HEADS, WIDTH)
  params = parameters(attention, x, context)
  read = lambda context: np.asarray(apply(attention, params, x, context, valid=valid))
  out = read(context)
  np.testing.assert_array_equal(out, read(np.where(valid[:, :, None], context, np.float32(99))))
  moved = context.copy()
  moved[:, 0] += 1
  assert abs(out - read(moved)).min() > 0
  alone = apply(attention, params, x[1:], context[1:, :1])
  np.testing.assert_allclose(out[1:], alone, rtol=1e-5, atol=1e-5)


def test_nobody_attends_to_padding():
  x = normal(0, BATCH, LENGTH, DIM)
  valid = np.arange(LENGTH)[None] < np.array([[3], [5]])
  attention = Attention(HEADS, WIDTH)
  params = parameters(attention, x)
  out = apply(attention, params, x, valid=valid)
  short = apply(attention, params, x[:1, :3])
  np.testing.assert_allclose(out[:1, :3], short, rtol=1e-5, atol=1e-5)


def test_a_query_that_sees_no_key_has_a_finite_output_and_gradient():
  x = normal(0, BATCH, LENGTH, DIM)
  attention = Attention(HEADS, WIDTH)
  params = parameters(attention, x)

  def total(x):
    return attention.apply({"params": params}, x, info=SequenceInfo(np.zeros((BATCH, LENGTH), bool))).sum()

  value, gradient = jax.jit(jax.value_and_grad(total))(x)
  assert np.isfinite(value) and np.isfinite(gradient).all()


def test_weights_on_request_sum_to_one_over_what_is_seen():
  x = normal(0, BATCH, LENGTH, DIM)
  attention = Attention(HEADS, WIDTH, num_kv_heads=3, mask=masks.causal)
  params = parameters(attention, x)
  _, state = apply(attention, params, x, mutable="intermediates")
  (weights,) = jax.device_get(state["intermediates"]["weights"])
  assert weights.shape == (BATCH, HEADS, LENGTH, LENGTH)
  np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
  assert not np.triu(weights, 1).any()


def test_nobody_pays_for_weights_that_nobody_asked_for():
  def kernel(query, key, value, *, on_weights, **_):
    assert on_weights is None
    return query

  attention = Attention(HEADS, WIDTH, kernel=kernel, dropout=0.5)
  x = normal(0, BATCH, LENGTH, DIM)
  params = parameters(attention, x)
  apply(attention, params, x)
  with pytest.raises(AssertionError):
    apply(attention, params, x, mutable="intermediates")


def test_dropout_of_weights_acts_in_training_only_and_keeps_their_mean():
  x = np.ones((1, 64, DIM), np.float32)
  attention = Attention(HEADS, WIDTH, dropout=0.25)
  params = parameters(attention, x)
  plain = apply(attention, params, x)
  np.testing.assert_array_equal(plain, apply(Attention(HEADS, WIDTH), params, x, train=True))

  @jax.jit
  def draw(key):
    kept = []

    def kernel(query, key, value, *, on_weights, **_):
      kept.append(on_weights(jnp.ones((1, HEADS, 64, 64))))
      return query

    attention.copy(kernel=kernel).apply({"params": params}, x, train=True, rngs={"dropout": key})
    return kept[0]

  weights, others = (np.asarray(draw(jax.random.key(seed))) for seed in (0, 1))
  np.testing.assert_array_equal(np.unique(weights), np.array([0, 4 / 3], np.float32))
  sigma = math.sqrt(0.75 * 0.25 / weights.size)
  assert abs((weights > 0).mean() - 0.75) < 5 * sigma
  assert (weights != others).any()


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
  params = parameters(attention, x)
  bias = positions.alibi(HEADS)
  full = apply(attention, params, x, rule=bias)
  longer = np.zeros((BATCH, LENGTH + 2, DIM), np.float32)
  _, state = jax.eval_shape(lambda x: attention.apply({"params": params}, x, mutable=["cache"]), longer)
  cache = jax.tree.map(lambda kept: np.zeros(kept.shape, kept.dtype), state["cache"])
  cache["positions"] -= 1
  outs = []
  for piece in (x[:, :2], x[:, 2:3], x[:, 3:]):  # Two tokens, then one, then two.
    y, state = apply(attention, params, piece, rule=bias, cache=cache, mutable="cache")
    cache = state["cache"]
    outs.append(y)
  np.testing.assert_allclose(np.concatenate(outs, 1), full, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(cache["positions"][0], [0, 1, 2, 3, 4, -1, -1])


def test_cached_padding_is_never_seen():
  x = normal(0, 1, LENGTH, DIM)
  attention = Attention(HEADS, WIDTH, mask=masks.causal)
  params = parameters(attention, x)
  padded = np.concatenate([x[:, :1] * 9, x], axis=1)
  valid, places = np.arange(LENGTH + 1)[None] > 0, np.maximum(np.arange(-1, LENGTH), 0)[None]
  out, state = apply(attention, params, padded, valid=valid, positions=places, mutable="cache")
  np.testing.assert_allclose(out[:, 1:], apply(attention, params, x), rtol=1e-5, atol=1e-5)
  assert state["cache"]["positions"][0, 0] == -1


def test_the_keys_of_a_context_are_computed_once_for_all_steps():
  x, context = normal(0, BATCH, LENGTH, DIM), normal(1, BATCH, 3, 11)
  valid = np.array([[True, True, False], [True, False, False]])
  attention = Attention(HEADS, WIDTH, key_bias=False)
  params = parameters(attention, x, context)
  full = apply(attention, params, x, context, valid=valid)
  first, state = apply(attention, params, x[:, :2], context, valid=valid, mutable="cache")
  assert set(state["cache"]) == {"context_keys", "context_values"}
  # Recomputing them would need the projections, or the context.
  left = {name: params[name] for name in ("query", "out")}
  nothing = np.full_like(context, np.nan)
  second, _ = apply(attention, left, x[:, 2:], nothing, valid=valid, **state, mutable="cache")
  np.testing.assert_allclose(np.concatenate([first, second], 1), full, rtol=1e-5, atol=1e-5)


def test_a_cache_is_of_one_context():
  x, context = normal(0, BATCH, LENGTH, DIM), normal(1, BATCH, 3, 11)
  attention = Attention(HEADS, WIDTH)
  params = parameters(attention, x, context)
  _, state = apply(attention, params, x, context, mutable="cache")
  with pytest.raises(ValueError, match=r"The cache holds a context of \[2, 3\], the call one of \[2, 2\]"):
    apply(attention, params, x, context[:, :2], **state, mutable="cache")


def test_attention_without_a_mask_keeps_nothing():
  x = normal(0, BATCH, LENGTH, DIM)
  attention = Attention(HEADS, WIDTH)
  params = parameters(attention, x)
  out, state = apply(attention, params, x, mutable="cache")
  assert not state
  np.testing.assert_array_equal(out, apply(attention, params, x))


def test_logits_are_scaled_as_asked():
  x = normal(0, BATCH, LENGTH, DIM)
  plain, scaled = Attention(HEADS, WIDTH), Attention(HEADS, WIDTH, scale=1.0)
  params = parameters(plain, x)
  query = jax.tree.map(lambda array: array * WIDTH**-0.5, params["query"])
  same = apply(scaled, {**params, "query": query}, x)
  np.testing.assert_allclose(same, apply(plain, params, x), rtol=1e-5, atol=1e-5)


def test_a_key_may_do_without_bias():
  params = parameters(Attention(HEADS, WIDTH, key_bias=False), normal(0, BATCH, LENGTH, DIM))
  assert [name for name in params if "bias" not in params[name]] == ["key"]


def test_a_bias_is_an_array_or_a_function_of_positions():
  x = normal(0, BATCH, LENGTH, DIM)
  attention = Attention(HEADS, WIDTH)
  params = parameters(attention, x)
  rule, places = positions.alibi(HEADS), np.arange(LENGTH)[None]
  array = rule(places[:, :, None], places[:, None, :])
  ways = dict(rule=rule), dict(bias=array), {}
  one, other, none = (np.asarray(apply(attention, params, x, **way)) for way in ways)
  np.testing.assert_array_equal(one, other)
  assert abs(one - none).max() > 0.01


def test_bfloat16_computes_its_softmax_in_float32():
  x = normal(0, BATCH, LENGTH, DIM)
  attention = Attention(HEADS, WIDTH, dtype=jnp.bfloat16)
  params = parameters(attention, x)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
  out, state = apply(attention, params, x, mutable="intermediates")
  assert out.dtype == jnp.bfloat16
  assert state["intermediates"]["weights"][0].dtype == jnp.float32
  exact = np.asarray(apply(Attention(HEADS, WIDTH), params, x))
  np.testing.assert_allclose(np.asarray(out, np.float32), exact, atol=0.03 * float(abs(exact).max()))
