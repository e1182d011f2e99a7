"""Sparse attention is dense attention without the pairs that nothing comes of."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers import sparse_attention as sparse
from zoo.layers.attention import Attention, dense_attention
from zoo.layers.block_patterns import Blocks, random
from zoo.layers.image_patterns import Convolution
from zoo.layers.masks import AttentionMask
from zoo.layers.patterns import GlobalTokens, Window, window
from zoo.layers.plans import plan
from zoo.layers.sequence import SequenceInfo

LENGTH, HEADS, WIDTH = 53, 4, 3
PLACES = np.arange(LENGTH, dtype=np.int32)[None]
BIGBIRD = Window(1, 1) | GlobalTokens((0, -1))
# pattern, kv_heads, tile, and what else is masked.
CASES = {
  "both sides, texts that share a row, padding": (Window(5, 5), 2, 8, "packed padded"),
  "causal window, many steps": (Window(30, 0), 4, 4, "padded"),
  "dilated, soft-capped": (window(4, dilation=3), 1, 8, "capped"),
  "global tokens that are inputs": (Window(3, 3), 4, 8, "few padded"),
  "more of them than fit at once": (Window(3, 3), 2, 8, "many packed padded"),
  "blocks of its own for each head": (Blocks(4, BIGBIRD | random(2, 14, seed=0, heads=4)), 4, 4, "packed"),
  "blocks": (Blocks(4, BIGBIRD | random(2, 14, seed=0)), 2, 8, "padded"),
  "an image": ((GlobalTokens(range(13), sees=False) | Convolution(8, 13, 3, 2)) & Window(None, 0), 4, 4, ""),
}


def inputs(kv_heads, masked):
  rng = np.random.default_rng(0)
  draw = lambda heads: rng.standard_normal((2, LENGTH, heads, WIDTH)).astype(np.float32)
  arrays = draw(HEADS), draw(kv_heads), draw(kv_heads)
  valid = PLACES < LENGTH - np.array([[19], [0]]) if "padded" in masked else None
  ids = np.broadcast_to(np.searchsorted([17, 31], PLACES, side="right").astype(np.int32), (2, LENGTH))
  ids = ids if "packed" in masked else None
  rate = 0.1 if "few" in masked else 0.9 if "many" in masked else 0
  return arrays, (PLACES, PLACES, valid, ids, ids, True, rng.random((2, LENGTH)) < rate if rate else None)


def outcome(kernel, pattern, arrays, facts, masked):
  hooks = {"on_logits": jnp.tanh} if "capped" in masked else {}

  def loss(arrays):
    y = kernel(*arrays, mask=AttentionMask(pattern, *facts), **hooks)
    return (y * np.cos(np.arange(y.size, dtype=np.float32)).reshape(y.shape)).sum(), y

  return jax.jit(jax.grad(loss, has_aux=True))(arrays)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_dense_attention(case):
  pattern, kv_heads, tile, masked = CASES[case]
  arrays, facts = inputs(kv_heads, masked)
  kernels = functools.partial(sparse.sparse_attention, tile=tile), dense_attention
  ours, dense = (jax.tree.leaves(outcome(kernel, pattern, arrays, facts, masked)) for kernel in kernels)
  for one, other in zip(ours, dense, strict=True):
    np.testing.assert_allclose(one, other, atol=3e-6)


def test_twice_the_length_takes_twice_the_memory_and_the_pairs():
  def memory(length):
    places = jnp.arange(length)[None]
    mask = AttentionMask(Window(40, 40), places, places, in_order=True, global_keys=places < 1)
    arrays = (jax.ShapeDtypeStruct((1, length, 1, 2), jnp.float32),) * 3
    program = jax.jit(jax.grad(lambda arrays: sparse.attention(*arrays, mask=mask).sum()))
    return program.lower(arrays).compile().memory_analysis().temp_size_in_bytes

  assert memory(4096) < 2.2 * memory(2048) < 2048**2 * 4 * 2.2 / 10
  for pattern in (Window(40, 40), Blocks(64, BIGBIRD), Window(3000, 0)):
    assert plan(pattern.at(65536), 65536).pairs < 2.2 * plan(pattern.at(32768), 32768).pairs


def test_it_runs_where_half_of_the_pairs_need_not_be_compared(monkeypatch):
  monkeypatch.setattr(sparse, "FROM", 700)
  shape = lambda length: jax.ShapeDtypeStruct((1, length, 2, 4), jnp.float32)
  places = lambda length: jnp.arange(length)[None]

  def sparsely(pattern, length=700, in_order=True, **options):
    mask = AttentionMask(pattern, places(length), places(length), in_order=in_order)
    program = jax.make_jaxpr(lambda *arrays: sparse.attention(*arrays, mask=mask, **options))
    return "custom_vjp" in str(program(*[shape(length)] * 3))

  assert sparsely(Window(60, 60)) and sparsely(Window(90, 0), on_logits=jnp.tanh)
  assert not sparsely(Window(60, 60), length=699)
  assert not sparsely(Window(300, 300)) and not sparsely(Window(None, 0)) and not sparsely(None)
  assert not sparsely(Window(60, 60), in_order=False)
  assert not sparsely(lambda query, key: query == key)
  assert not sparsely(Window(60, 60), bias=jnp.zeros((1, 1, 1, 700)))
  assert not sparsely(Window(60, 60), on_weights=lambda weights: weights)


def test_dropped_weights_are_dropped_in_the_gradient_too(monkeypatch):
  monkeypatch.setattr(sparse, "FROM", 0)
  rate, scale = 0.4, 0.5
  _, facts = inputs(HEADS, "")
  query, key = np.random.default_rng(0).standard_normal((2, 2, LENGTH, HEADS, LENGTH)).astype(np.float32) / 4
  mask = AttentionMask(Window(5, 5), *facts)
  value = np.broadcast_to(np.eye(LENGTH, dtype=np.float32)[None, :, None], (2, LENGTH, HEADS, LENGTH))
  hook = type("Hook", (), {"rate": rate, "watched": False, "dropping": staticmethod(lambda: jax.random.key(0))})()
  cotangent = np.cos(np.arange(value.size, dtype=np.float32)).reshape(value.shape)

  def run(kernel, **options):
    y, pull = jax.vjp(lambda *arrays: kernel(*arrays, mask=mask, scale=scale, **options), query, key, value)
    return y, *pull(cotangent)

  ours = jax.jit(lambda: run(functools.partial(sparse.sparse_attention, tile=8), on_weights=hook))()
  plain = dense_attention(query, key, value, mask=mask, scale=scale)
  kept = np.where(plain > 0, ours[0] / np.where(plain > 0, plain, 1), 0).swapaxes(1, 2)  # [batch, heads, query, key]
  share = (kept > 0).sum() / (np.asarray(plain) > 0).sum()
  assert abs(share - (1 - rate)) < 0.05
  np.testing.assert_allclose(kept[kept > 0], 1 / (1 - rate), rtol=1e-4)
  dense = jax.jit(lambda: run(dense_attention, on_weights=lambda weights: weights * kept))()
  for one, other in zip(ours, dense, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_attention_drops_weights_and_shows_them(monkeypatch):
  monkeypatch.setattr(sparse, "FROM", 0)
  monkeypatch.setattr(sparse, "plan", lambda pattern, length, tile=None: plan(pattern, length, 4))
  attention = Attention(2, 3, mask=Window(4, 0), dropout=0.5)
  x = np.random.default_rng(0).standard_normal((2, LENGTH, 6)).astype(np.float32)
  params = attention.init(jax.random.key(0), x)
  run = jax.jit(lambda params, x, key: attention.apply(params, x, train=True, rngs={"dropout": key}))
  still, *dropped = attention.apply(params, x), *(run(params, x, jax.random.key(seed)) for seed in (1, 2))
  assert abs(dropped[0] - still).max() > 0.01 and abs(dropped[0] - dropped[1]).max() > 0.01
  output, sown = attention.apply(params, x, mutable=["intermediates"])
  np.testing.assert_allclose(output, still, atol=1e-6)
  assert sown["intermediates"]["weights"][0].shape == (2, 2, LENGTH, LENGTH)


def test_rows_that_are_padding_alone_get_the_mean_as_in_dense_attention():
  (query, key, value), _ = inputs(HEADS, "")
  mask = AttentionMask(Window(5, 5), PLACES, PLACES, np.zeros((2, LENGTH), bool), in_order=True)
  y = sparse.sparse_attention(query, key, value, mask=mask, tile=8)
  np.testing.assert_allclose(y, np.broadcast_to(value.mean(1, keepdims=True), y.shape), atol=1e-6)


def test_a_module_takes_a_pattern():
  attention = Attention(2, 3, mask=Blocks(4, BIGBIRD))
  x = np.random.default_rng(0).standard_normal((1, LENGTH, 6)).astype(np.float32)
  params = attention.init(jax.random.key(0), x)
  y = attention.apply(params, x, info=SequenceInfo(valid=PLACES < 40))
  changed = attention.apply(params, np.where((PLACES == 20)[..., None], 1, x), info=SequenceInfo(valid=PLACES < 40))
  moved = np.flatnonzero(abs(y - changed).max((0, 2)))
  np.testing.assert_array_equal(moved, [0, 1, 2, 3, *range(16, 28), 52])
