import jax
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.generate import prepared
from zoo.layers.products import FEW, TURNED, as_built, kernel_first, outputs_first, with_products

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 5, 7), np.float32)
TOKENS = RNG.integers(0, 23, (2, 5), np.int32)
SIZES = dict(vocab_size=23, dim=6, depth=2, num_heads=3)


@pytest.mark.parametrize("inputs, outputs", [((7,), (11,)), ((7,), (2, 5)), ((5, 7), (3,))])
def test_either_order_has_the_same_product(inputs, outputs):
  kernel = np.random.default_rng(2).standard_normal(inputs + outputs, np.float32)
  dimensions = ((tuple(range(4 - len(inputs), 4)), tuple(range(len(inputs)))), ((), ()))
  wanted = jax.lax.dot_general(X, kernel, dimensions)
  actual = jax.jit(lambda x, kernel: kernel_first(x, kernel, dimensions))(X, kernel)
  np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-5)
  many = np.concatenate([X] * FEW)
  np.testing.assert_array_equal(kernel_first(many, kernel, dimensions), jax.lax.dot_general(many, kernel, dimensions))


@pytest.mark.parametrize("family, given", [("gpt", {"max_length": 8}), ("t5", {"gated": True, "tied": False})])
def test_turned_kernels_make_the_same_model(family, given):
  model = zoo.build(family, **SIZES, **given)
  params = filled(model, *model.example(), seed=1)
  turned = outputs_first(params)
  assert turned["decoder" if family == "t5" else "stack"] != params and TURNED in str(jax.tree.structure(turned))
  assert "'kernel'" not in str(jax.tree.structure(turned))
  back = as_built(turned)
  assert jax.tree.all(jax.tree.map(np.array_equal, back, params))
  other = with_products(model, kernel_first)
  assert other != model
  inputs = (TOKENS,) if family == "gpt" else (TOKENS, TOKENS)
  outputs = (jax.jit(one.apply)({"params": params}, *inputs) for one in (model, other))
  for wanted, actual in zip(*map(jax.tree.leaves, outputs)):
    np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-5)


def test_kernels_are_turned_once_and_forgotten_with_the_parameters():
  model = zoo.build("gpt", **SIZES, max_length=8, scan=True)
  params = filled(model, *model.example(), seed=1)
  before = len(prepared._CONVERTED)
  (_, first), _ = prepared.prepared(model, params)
  (_, second), _ = prepared.prepared(model, dict(params))
  assert first is second and len(prepared._CONVERTED) == before + 1
  changed = params | {"embed": {"embedding": params["embed"]["embedding"] + 1}}
  (_, third), _ = prepared.prepared(model, changed)
  np.testing.assert_array_equal(third["embed"]["embedding"], changed["embed"]["embedding"])
  del params, changed, first, second, third
  assert len(prepared._CONVERTED) == before


def test_arrays_that_may_change_are_turned_anew():
  model = zoo.build("gpt", **SIZES, max_length=8)
  params = jax.tree.map(np.array, filled(model, *model.example(), seed=1))
  (_, told), _ = prepared.prepared(model, params)
  assert told is params
