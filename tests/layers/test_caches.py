import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.filled import filled
from zoo.layers import masks
from zoo.layers.attention import Attention, with_caches
from zoo.layers.blocks import PreNormBlock
from zoo.layers.caches import FullCache, RingCache, packed, unpacked
from zoo.layers.mlp import MLP
from zoo.layers.norms import layer_norm
from zoo.layers.positions import rotary
from zoo.layers.sequence import SequenceInfo
from zoo.layers.stack import stack

WINDOW = masks.both(masks.causal, masks.window(3))
ATTENTION = Attention(2, 6, mask=WINDOW, rotary=rotary())
X = np.random.default_rng(0).standard_normal((2, 11, 8), np.float32)
PARAMS = {"params": filled(ATTENTION, X)}


@functools.partial(jax.jit, static_argnums=0)
def step(attention, variables, x, valid=None, positions=None):
  return attention.apply(variables, x, info=SequenceInfo(valid, positions), mutable=["cache"])


@functools.cache
def whole():
  return np.asarray(jax.jit(ATTENTION.apply)(PARAMS, X))


def in_pieces(attention, x, pieces, valid=None, positions=None):
  """The concatenated outputs for x in consecutive pieces of these lengths."""
  variables, outputs, start = PARAMS, [], 0
  positions = np.arange(x.shape[1])[None] if positions is None else positions
  for length in pieces:
    part = slice(start, start + length)
    real = None if valid is None else valid[:, part]
    y, state = step(attention, variables, x[:, part], real, positions[:, part])
    variables, start = {**PARAMS, **state}, start + length
    outputs.append(y)
  return np.concatenate(outputs, axis=1), state["cache"]


@pytest.mark.parametrize("pieces", [(11,), (1,) * 11, (7, 1, 1, 1, 1), (2, 6, 1, 2)])
@pytest.mark.parametrize("size", [4, 6, 32])
def test_a_ring_as_long_as_the_window_changes_nothing(size, pieces):
  y, cache = in_pieces(ATTENTION.copy(cache=RingCache(size)), X, pieces)
  np.testing.assert_allclose(y, whole(), atol=2e-5)
  assert cache["ring_keys"].shape == (2, 2, size, 6)


def test_a_ring_keeps_the_last_real_tokens_of_a_padded_prompt():
  valid = np.array([[True] * 6 + [False] * 3 + [True] * 2, [False] * 2 + [True] * 9])
  positions = np.maximum(np.cumsum(valid, axis=1) - 1, 0)
  y, _ = in_pieces(ATTENTION.copy(cache=RingCache(4)), X, (9, 1, 1), valid, positions)
  apply = jax.jit(ATTENTION.apply)
  for row in range(2):
    wanted = apply(PARAMS, X[row][valid[row]][None])[0]
    np.testing.assert_allclose(y[row][valid[row]], wanted, atol=2e-5)


def test_one_may_go_back_in_a_ring():
  attention = ATTENTION.copy(cache=RingCache(16))
  wrong = X.copy()
  wrong[:, 5:8] += 1
  _, cache = in_pieces(attention, wrong[:, :8], (4, 4))
  y, _ = step(attention, {**PARAMS, "cache": cache}, X[:, 5:], positions=np.arange(5, 11)[None])
  np.testing.assert_allclose(y, whole()[:, 5:], atol=2e-5)


def test_a_ring_that_goes_on_needs_positions():
  attention = ATTENTION.copy(cache=RingCache(4))
  _, cache = in_pieces(attention, X, (11,))
  with pytest.raises(ValueError, match="Decoding with a RingCache needs positions"):
    step(attention, {**PARAMS, "cache": cache}, X[:, :1])


@pytest.mark.parametrize("dtype, error, bits", [("bfloat16", 0.004, jnp.bfloat16), ("int8", 0.004, jnp.int8)])
def test_fewer_bits_cost_little(dtype, error, bits):
  held = jax.jit(packed, static_argnums=(0, 2))("keys", X, dtype)
  assert held["keys"].dtype == bits
  assert (abs(np.asarray(unpacked("keys", held, X.dtype)) - X) <= error * abs(X).max(axis=-1, keepdims=True)).all()


@pytest.mark.parametrize("kind", [FullCache, functools.partial(RingCache, 4)])
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_attention_over_fewer_bits_is_near(kind, dtype):
  y, cache = in_pieces(ATTENTION.copy(cache=kind(dtype=dtype)), X, (11,))
  assert 0 < abs(y - whole()).max() < 0.05 * abs(whole()).max()
  assert str(cache.get("keys", cache.get("ring_keys")).dtype) == dtype


def test_every_attention_of_a_module_gets_its_cache():
  blocks = tuple(PreNormBlock(ATTENTION.copy(mask=rule), MLP(9), layer_norm(1e-5)) for rule in (WINDOW, masks.causal))
  module = stack(blocks, 4, scan=True)
  choose = lambda attention: FullCache() if masks.lookback(attention.mask) is None else RingCache(4)
  outputs = with_caches(module, choose)
  assert [block.attention.cache for block in outputs.block] == [RingCache(4), FullCache()]
  assert with_caches(outputs, lambda attention: FullCache()) == module


@pytest.mark.parametrize(
  "rule, back",
  [(None, None), (masks.causal, None), (masks.window(3), 3), (WINDOW, 3), (masks.both(WINDOW, masks.window(2)), 2)],
)
def test_a_rule_tells_how_far_back_one_sees(rule, back):
  assert masks.lookback(rule) == back


def test_adjacent_rows_may_share_a_cached_context():
  attention = Attention(num_heads=3, head_dim=2)
  rng = np.random.default_rng(0)
  context, x = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 5, 6), (6, 1, 6)))
  valid = np.arange(5)[None] < np.array([[3], [5]])
  params = attention.init(jax.random.key(0), x[:2], context)
  info = SequenceInfo(valid)
  _, state = attention.apply(params, x[::3], context, context_info=info, mutable=["cache"])
  shared, _ = attention.apply({**params, **state}, x, context, context_info=info, mutable=["cache"])
  alone = attention.apply(params, x, context.repeat(3, axis=0), context_info=SequenceInfo(valid.repeat(3, axis=0)))
  np.testing.assert_allclose(shared, alone, atol=1e-6)
