import jax
import numpy as np
import pytest

from zoo.layers import blocked_attention as blocks
from zoo.layers.attention import dense_attention
from zoo.layers.masks import AttentionMask


def draw(*shape):
  return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("queries, keys", [(7, 13), (11, 5), (10, 3)])
def test_blocks_are_dense_attention(monkeypatch, queries, keys):
  monkeypatch.setattr(blocks, "FROM", 1)
  monkeypatch.setattr(blocks, "BLOCK", 5)
  query, key, value = draw(2, queries, 3, 4), draw(2, keys, 3, 4), draw(2, keys, 3, 4)
  assert "while" in str(jax.make_jaxpr(blocks.blocked_attention)(query, key, value)).replace("scan", "while")
  for scale in (None, 0.7):
    blocked = jax.jit(blocks.blocked_attention, static_argnames="scale")(query, key, value, scale=scale)
    np.testing.assert_allclose(blocked, dense_attention(query, key, value, scale=scale), atol=1e-6)


def test_what_it_cannot_do_is_left_to_dense_attention(monkeypatch):
  monkeypatch.setattr(blocks, "FROM", 1)
  query, key, value = draw(2, 7, 6, 4), draw(2, 5, 6, 4), draw(2, 5, 6, 4)
  valid = np.arange(5)[None] < np.array([[3], [5]])
  positions = np.arange(7)[None], np.arange(5)[None]
  masked = dict(mask=AttentionMask(None, *positions, valid, None, None, False))
  for options in (masked, dict(bias=draw(1, 6, 7, 5)), dict(on_weights=lambda weights: weights**2)):
    np.testing.assert_array_equal(
      blocks.blocked_attention(query, key, value, **options), dense_attention(query, key, value, **options)
    )
  few = key[:, :, :2], value[:, :, :2]
  np.testing.assert_array_equal(blocks.blocked_attention(query, *few), dense_attention(query, *few))
