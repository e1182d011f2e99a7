import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers import masks, norms, reversible
from zoo.layers.attention import Attention
from zoo.layers.blocks import PreNormBlock
from zoo.layers.mlp import MLP
from zoo.layers.reversible import ReversibleBlock, Streams, reversible_stack
from zoo.layers.stack import stack, stack_layers

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 13, 6)), jnp.float32)


def blocks(count, dropout=0.0):
  """Blocks of parts that other families use, of so many kinds."""
  results = [
    ReversibleBlock(Attention(3, 2, mask=mask, dropout=dropout), MLP(11), norms.layer_norm(1e-6), dropout)
    for mask in (masks.causal, None)[:count]
  ]
  return tuple(results) if count > 1 else results[0]


def outcome(model, params, **options):
  """Sum and gradients of a loss of both streams, in one program."""

  def loss(params, x):
    out = model.apply({"params": params}, Streams(x, 2 * x), **options)
    return (jnp.sin(out.first) + jnp.cos(out.second)).sum()

  return jax.jit(jax.value_and_grad(loss, (0, 1)))(params, X)


def close(one, other):
  largest = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(other))
  for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("kinds, depth, scan", [(1, 3, False), (1, 3, True), (2, 3, True)])
def test_gradients_are_those_of_plain_layers_with_the_same_entries_dropped(kinds, depth, scan, monkeypatch):
  model = reversible_stack(blocks(kinds, dropout=0.3), depth, scan=scan)
  params = jax.jit(model.init)(jax.random.key(0), Streams(X, X))["params"]
  options = {"train": True, "rngs": {"dropout": jax.random.key(1)}}
  kept = outcome(model, params, **options)
  plain = lambda runs, variables, keys, fixed, kwargs, streams: reversible.straight(
    runs, variables, keys, reversible._merged(fixed, kwargs), streams
  )[0]
  monkeypatch.setattr(reversible, "_reversible", plain)
  close(kept, outcome(model, params, **options))
  other = outcome(model, params, train=True, rngs={"dropout": jax.random.key(2)})
  assert abs(kept[0] - other[0]) > 1e-3


def test_a_scan_equals_a_loop_and_a_captured_call():
  loop, scan = (reversible_stack(blocks(1), 3, scan=scan) for scan in (False, True))
  params = jax.jit(loop.init)(jax.random.key(0), Streams(X, X))["params"]
  first = outcome(loop, params)
  (value, (grads, of_x)) = outcome(scan, stack_layers(params))
  close((value, (grads, of_x)), (first[0], (stack_layers(first[1][0]), first[1][1])))
  captured, _ = jax.jit(lambda params: loop.apply({"params": params}, Streams(X, X), mutable=["intermediates"]))(params)
  close(jax.jit(lambda params: loop.apply({"params": params}, Streams(X, X)))(params), captured)


def test_an_array_of_floats_among_the_keywords_gets_its_gradient():
  model = reversible_stack(blocks(1), 2, scan=True)
  params = jax.jit(model.init)(jax.random.key(0), Streams(X, X))["params"]
  bias = jnp.asarray(np.random.default_rng(1).normal(size=(1, 3, 13, 13)), jnp.float32)

  def loss(bias, **options):
    out = model.apply({"params": params}, Streams(X, X), bias=bias, **options)
    return jnp.sin((out if isinstance(out, Streams) else out[0]).first).sum()

  close(jax.jit(jax.grad(loss))(bias), jax.jit(jax.grad(functools.partial(loss, mutable=["intermediates"])))(bias))


def temporaries(model, x):
  """Bytes of temporaries in the program of a gradient."""
  params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
  loss = lambda params, x: sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(model.apply({"params": params}, x)))
  return jax.jit(jax.grad(loss)).lower(params, x).compile().memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_depth():
  x = jnp.zeros((8, 64, 16))
  parts = dict(attention=Attention(2, 8), mlp=MLP(64), norm=norms.layer_norm(1e-6))
  kept = [temporaries(reversible_stack(ReversibleBlock(**parts), n, scan=True), Streams(x, x)) for n in (2, 16)]
  plain = [temporaries(stack(PreNormBlock(**parts), n, scan=True), x) for n in (2, 16)]
  assert kept[1] < 1.05 * kept[0] and plain[1] > 5.5 * plain[0], (kept, plain)
