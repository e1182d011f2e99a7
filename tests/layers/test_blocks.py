import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.filled import filled
from zoo.layers import norms
from zoo.layers.attention import Attention
from zoo.layers.blocks import DropPath, PostNormBlock, PreNormBlock
from zoo.layers.mlp import MLP

ATTENTION, FEED_FORWARD, NORM = Attention(3, 4), MLP(11), norms.layer_norm(1e-5)
CROSS = Attention(2, 5)
X = jax.random.normal(jax.random.key(0), (2, 5, 7))
CONTEXT = jax.random.normal(jax.random.key(1), (2, 3, 13))


def run(part, params, *args):
  return jax.jit(part.apply)({"params": params}, *args)


def test_pre_norm_adds_what_sublayers_make_of_the_normed_stream():
  block = PreNormBlock(ATTENTION, FEED_FORWARD, NORM, cross=CROSS)
  p = filled(block, X, CONTEXT)
  x = X + run(ATTENTION, p["self_attention"], run(NORM, p["attention_norm"], X))
  x = x + run(CROSS, p["cross_attention"], run(NORM, p["cross_norm"], x), CONTEXT)
  x = x + run(FEED_FORWARD, p["feed_forward"], run(NORM, p["mlp_norm"], x))
  np.testing.assert_allclose(run(block, p, X, CONTEXT), x, rtol=1e-5, atol=1e-5)


def test_post_norm_norms_the_sum():
  block = PostNormBlock(ATTENTION, FEED_FORWARD, NORM, cross=CROSS)
  p = filled(block, X, CONTEXT)
  x = run(NORM, p["attention_norm"], X + run(ATTENTION, p["self_attention"], X))
  x = run(NORM, p["cross_norm"], x + run(CROSS, p["cross_attention"], x, CONTEXT))
  x = run(NORM, p["mlp_norm"], x + run(FEED_FORWARD, p["feed_forward"], x))
  np.testing.assert_allclose(run(block, p, X, CONTEXT), x, rtol=1e-5, atol=1e-5)


def test_what_comes_after_a_sublayer_comes_before_the_sum():
  after = norms.LayerScale(0.1)
  block = PreNormBlock(ATTENTION, FEED_FORWARD, NORM, after=after)
  p = filled(block, X)
  scales = [p[name]["scale"][None, None] for name in ("attention_after", "mlp_after")]
  x = X + scales[0] * run(ATTENTION, p["self_attention"], run(NORM, p["attention_norm"], X))
  x = x + scales[1] * run(FEED_FORWARD, p["feed_forward"], run(NORM, p["mlp_norm"], x))
  np.testing.assert_allclose(run(block, p, X), x, rtol=1e-5, atol=1e-5)
  block = PostNormBlock(ATTENTION, FEED_FORWARD, NORM, after=after)
  x = run(NORM, p["attention_norm"], X + scales[0] * run(ATTENTION, p["self_attention"], X))
  x = run(NORM, p["mlp_norm"], x + scales[1] * run(FEED_FORWARD, p["feed_forward"], x))
  np.testing.assert_allclose(run(block, p, X), x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [PreNormBlock, PostNormBlock])
def test_the_same_part_given_twice_shares_no_parameters(kind):
  shapes = jax.eval_shape(lambda: NORM.init(jax.random.key(0), X))
  count = lambda tree: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
  params = filled(kind(ATTENTION, FEED_FORWARD, NORM, cross=ATTENTION), X, X)
  assert count(params["self_attention"]) == count(params["cross_attention"])
  assert not np.array_equal(params["self_attention"]["query"]["kernel"], params["cross_attention"]["query"]["kernel"])
  assert sum(count(params[name]) for name in ("attention_norm", "cross_norm", "mlp_norm")) == 3 * count(shapes)


def test_dropout_and_drop_path_act_in_training_only():
  block = PreNormBlock(ATTENTION, FEED_FORWARD, NORM, dropout=0.5)
  p = filled(block, X)
  plain = PreNormBlock(ATTENTION, FEED_FORWARD, NORM).apply({"params": p}, X)
  np.testing.assert_array_equal(block.apply({"params": p}, X, drop_path=0.5), plain)
  drawn = block.apply({"params": p}, X, train=True, rngs={"dropout": jax.random.key(0)})
  again = block.apply({"params": p}, X, train=True, rngs={"dropout": jax.random.key(0)})
  np.testing.assert_array_equal(drawn, again)
  assert abs(drawn - plain).max() > 0.1


def test_drop_path_drops_whole_examples_and_keeps_the_mean():
  x = jnp.ones((4000, 2, 3))
  dropped = jax.jit(lambda rate: DropPath().apply({}, x, rate, train=True, rngs={"dropout": jax.random.key(0)}))(0.25)
  kept = dropped[:, 0, 0] > 0
  np.testing.assert_allclose(dropped, jnp.where(kept[:, None, None], 4 / 3, 0.0) * x, rtol=1e-6)
  assert abs(kept.mean() - 0.75) < 5 * math.sqrt(0.75 * 0.25 / 4000)


def test_a_traced_rate_of_zero_drops_nothing():
  out = jax.jit(lambda rate: DropPath().apply({}, X, rate, train=True, rngs={"dropout": jax.random.key(0)}))(0.0)
  np.testing.assert_array_equal(out, X)
