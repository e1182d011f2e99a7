import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.filled import filled
from zoo.layers import masks, norms
from zoo.layers.attention import Attention
from zoo.layers.blocks import PreNormBlock
from zoo.layers.mlp import MLP
from zoo.layers.sequence import SequenceInfo
from zoo.layers.stack import ScannedStack, Stack, as_loop, scanned_path, stack, stack_layers, unstack_layers
from zoo.tree import flatten

BLOCK = PreNormBlock(Attention(3, 2, mask=masks.causal), MLP(11), norms.layer_norm(1e-5), dropout=0.25)
X = np.random.default_rng(0).standard_normal((2, 5, 7), np.float32)
VALID = np.array([[True] * 5, [True] * 3 + [False] * 2])
DEPTH = 3


def same(grads, others):
  """Within 1e-5 of the largest entry: some gradients, of a key's bias for one, are 0 but for rounding."""
  largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(others))
  for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(others)):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest)


def weighted(y, wave):
  """A loss in which every entry of y has a weight of its own."""
  return (y * wave(np.arange(y.size, dtype=np.float32)).reshape(y.shape)).sum()


def params():
  return filled(Stack(BLOCK, DEPTH), X)


def laid_out(kind):
  return params() if kind is Stack else stack_layers(params())


@functools.partial(jax.jit, static_argnums=0)
def run(module, params, x, valid=None):
  """-> the output and the weights of attention"""
  y, state = module.apply({"params": params}, x, info=SequenceInfo(valid), mutable=["intermediates"])
  return y, state["intermediates"]


@functools.cache
def evaluated(kind):
  return run(kind(BLOCK, DEPTH), laid_out(kind), X)


def turns(depth):
  """Two blocks that take turns, the first of which sees one neighbour only, as a loop and as a scan."""
  near = BLOCK.copy(attention=BLOCK.attention.copy(mask=masks.both(masks.causal, masks.window(1))))
  return Stack((near, BLOCK), depth), ScannedStack((near, BLOCK), depth)


class Counts(nn.Module):
  """Tells its place from its rate: x -> 10 x + drop_path, plus a parameter that starts at 0."""

  def __call__(self, x, drop_path=0.0, train=False):
    return 10 * x + drop_path


class Throws(nn.Module):
  """Adds 0 or 2, as a coin falls."""

  @nn.compact
  def __call__(self, x, train=False):
    return x + nn.Dropout(0.5)(jnp.ones_like(x), deterministic=not train)


def test_a_scanned_stack_equals_the_loop():
  def outcome(stack, params):
    def loss(params, x):
      y = stack.apply({"params": params}, x, info=SequenceInfo(VALID))
      return weighted(y, np.sin), y

    (_, y), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, X)
    return y, grads

  loop, (loop_grads, loop_x) = outcome(Stack(BLOCK, DEPTH), params())
  scan, (scan_grads, scan_x) = outcome(ScannedStack(BLOCK, DEPTH), stack_layers(params()))
  np.testing.assert_allclose(scan, loop, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(scan_x, loop_x, rtol=1e-4, atol=1e-4)
  same(scan_grads, stack_layers(loop_grads))


@pytest.mark.parametrize("depth", [4, 5])
def test_layers_of_two_kinds_take_turns(depth):
  loop, scan = turns(depth)
  looped_params = jax.device_get(filled(loop, X))

  def outcome(stack, params):
    def loss(params):
      y = stack.apply({"params": params}, X, info=SequenceInfo(VALID))
      return weighted(y, np.sin), y

    (_, y), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return y, grads

  shapes = jax.eval_shape(scan.init, jax.random.key(1), X)["params"]
  params = stack_layers(looped_params, shapes)
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda leaf: leaf.shape, shapes)
  assert sorted(params) == ["layer_4", "layers"][5 - depth :] and sorted(params["layers"]) == ["layer_0", "layer_1"]
  y, grads = outcome(loop, looped_params)
  scanned_y, scanned_grads = outcome(scan, params)
  np.testing.assert_allclose(scanned_y, y, rtol=1e-5, atol=1e-5)
  same(unstack_layers(scanned_grads), grads)
  x = X
  for i in range(depth):
    x, _ = run(loop.block[i % 2], looped_params[f"layer_{i}"], x, VALID)
  np.testing.assert_allclose(y, x, rtol=1e-5, atol=1e-5)


def test_layers_of_two_kinds_convert_both_ways_and_are_found():
  loop, scan = turns(5)
  looped_params = filled(loop, X)
  params = stack_layers(looped_params, jax.eval_shape(scan.init, jax.random.key(1), X)["params"])
  back = unstack_layers(params)
  assert jax.tree.structure(back) == jax.tree.structure(looped_params)
  assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(looped_params)))
  for tree in (looped_params, params, stack_layers(looped_params)):
    leaves = flatten({"stack": tree})
    for name, array in flatten({"stack": looped_params}).items():
      path, index = scanned_path(name, leaves)
      np.testing.assert_array_equal(leaves[path] if index is None else leaves[path][index], array)


def test_layouts_convert_both_ways():
  tree = {"tower": {"stack": params(), "norm": {"scale": jnp.ones(7)}}}
  scanned = stack_layers(tree)
  shapes = jax.eval_shape(ScannedStack(BLOCK, DEPTH).init, jax.random.key(1), X)["params"]
  assert jax.tree.map(jnp.shape, scanned["tower"]["stack"]) == jax.tree.map(lambda s: s.shape, shapes)
  back = unstack_layers(scanned)
  assert jax.tree.structure(back) == jax.tree.structure(tree)
  assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(tree)))


def test_layers_beyond_ten_keep_their_order():
  layers = {f"layer_{i}": {"scale": np.full(2, i)} for i in range(12)}
  scanned = stack_layers(layers)
  assert isinstance(scanned["layers"]["scale"], np.ndarray)
  np.testing.assert_array_equal(scanned["layers"]["scale"][:, 0], np.arange(12))
  assert unstack_layers(scanned)["layer_11"]["scale"][0] == 11


def test_layouts_convert_shapes_too():
  shapes = jax.eval_shape(stack_layers, jax.eval_shape(Stack(BLOCK, DEPTH).init, jax.random.key(1), X)["params"])
  assert shapes["layers"]["mlp_norm"]["scale"].shape == (DEPTH, 7)
  assert jax.eval_shape(unstack_layers, shapes)["layer_2"]["mlp_norm"]["scale"].shape == (7,)


@pytest.mark.parametrize("kind", [Stack, ScannedStack])
def test_drop_path_rises_linearly(kind):
  x = jnp.zeros((1, 2))
  out = kind(Counts(), 5, drop_path=0.4).apply({}, x, train=True)
  np.testing.assert_allclose(out, 1234.0 * 0.1, rtol=1e-5)
  out = kind((Counts(), Counts()), 5, drop_path=0.4).apply({}, x, train=True)
  np.testing.assert_allclose(out, 1234.0 * 0.1, rtol=1e-5)


@pytest.mark.parametrize("kind", [Stack, ScannedStack])
def test_drop_path_is_drawn_from_the_key_and_only_in_training(kind):
  p = laid_out(kind)
  apply = jax.jit(
    lambda key, train: kind(BLOCK.copy(dropout=0.0), DEPTH, drop_path=0.5).apply(
      {"params": p}, X, train=train, rngs={"dropout": key}
    ),
    static_argnums=1,
  )
  plain, _ = evaluated(kind)
  np.testing.assert_allclose(apply(jax.random.key(0), False), plain, rtol=1e-5, atol=1e-5)
  draws = [apply(jax.random.key(seed), True) for seed in (0, 0, 1, 2, 3, 4)]
  np.testing.assert_array_equal(draws[0], draws[1])
  assert len({np.asarray(draw).tobytes() for draw in draws}) > 2


@pytest.mark.parametrize("kind", [Stack, ScannedStack])
def test_every_layer_draws_its_own_dropout(kind):
  out = kind(Throws(), 2).apply({}, jnp.zeros((8, 8)), train=True, rngs={"dropout": jax.random.key(0)})
  assert set(np.unique(out)) == {0.0, 2.0, 4.0}


@pytest.mark.parametrize("kind", [Stack, ScannedStack])
def test_every_layer_starts_with_values_of_its_own(kind):
  @jax.jit  # What is not asked for is not compiled.
  def initial(key):
    p = kind(BLOCK, DEPTH).init(key, X)["params"]
    return (p if kind is ScannedStack else stack_layers(p))["layers"]["feed_forward"]["up"]["kernel"]

  kernel = np.asarray(initial(jax.random.key(1)))
  assert len({np.asarray(layer).tobytes() for layer in kernel}) == DEPTH
  # The spread is that of a single layer, 1/sqrt(fan_in): the axis of depth is no input.
  np.testing.assert_allclose(kernel.std(), 7**-0.5, rtol=0.25)


@pytest.mark.parametrize("kind", [Stack, ScannedStack])
def test_rematerialisation_changes_memory_and_not_values(kind):
  def outcome(remat):
    def loss(p):
      y = kind(BLOCK, DEPTH, remat=remat, drop_path=0.5).apply(
        {"params": p}, X, info=SequenceInfo(VALID), train=True, rngs={"dropout": jax.random.key(3)}
      )
      return weighted(y, np.cos)

    @jax.jit
    def trained(p):
      value, backward = jax.vjp(loss, p)
      return (value, backward(jnp.ones(()))), sum(leaf.size for leaf in jax.tree.leaves(backward))

    return trained(laid_out(kind))

  everything, most = outcome(None)
  for remat in ("dots", "full"):
    values, kept = outcome(remat)
    same(values, everything)
    assert kept < most
    most = kept


def test_scanned_layers_report_their_attention_weights():
  (_, scan), (_, loop) = evaluated(ScannedStack), evaluated(Stack)
  (weights,) = scan["layers"]["self_attention"]["weights"]
  (second,) = loop["layer_1"]["self_attention"]["weights"]
  np.testing.assert_allclose(weights[1], second, rtol=1e-5, atol=1e-6)


def test_looped_turns_scans_into_loops_wherever_they_are():
  class Tower(nn.Module):
    stack: nn.Module
    norm: nn.Module

  scan, loop = (Tower(kind(BLOCK, DEPTH), norms.layer_norm(1e-5)) for kind in (ScannedStack, Stack))
  assert as_loop(scan) == loop == as_loop(loop)


def test_deep_stacks_scan():
  assert isinstance(stack(BLOCK, 11), Stack) and isinstance(stack(BLOCK, 12), ScannedStack)
  assert isinstance(stack(BLOCK, 2, scan=True), ScannedStack) and isinstance(stack(BLOCK, 20, scan=False), Stack)
  assert isinstance(stack((BLOCK,) * 7, 13), Stack) and isinstance(stack((BLOCK,) * 7, 14), ScannedStack)


def test_a_stack_of_impossible_sizes_is_refused():
  with pytest.raises(ValueError, match="depth is 0. It must be at least 1."):
    stack(BLOCK, 0)
  with pytest.raises(ValueError, match="drop_path is 1.0. It must be a probability"):
    stack(BLOCK, 2, drop_path=1.0)
  with pytest.raises(ValueError, match="remat is 'some'. It may be None, full, dots, "):
    stack(BLOCK, 2, remat="some")
