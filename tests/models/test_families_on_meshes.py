"""Every family computes and learns the same on eight devices that split rows, texts, heads and parameters."""

import jax
import numpy as np
import pytest

import zoo
from tests.models.test_families import TINY, close, inputs, made
from zoo import activations
from zoo.sharding import make_mesh, shardings

EVEN = {"dim": 8, "depth": 2, "heads": 2, "mlp_dim": 8, "num_heads": 2}


def even(sizes):
  """Sizes that two devices can split."""
  return {name: EVEN.get(name, EVEN.get(name.rpartition("_")[2], size)) for name, size in sizes.items()}


@pytest.mark.slow
@pytest.mark.parametrize("family", TINY)
def test_outputs_and_gradients_are_those_of_one_device(family):
  model = zoo.build(family, **even(TINY[family]))
  params, mesh = made(model), make_mesh({"data": 2, "model": 2, "sequence": 2})
  rules = activations.read([], mesh)

  def loss(params):
    out = model.apply({"params": params}, *inputs(model))
    rng = np.random.default_rng(0)  # A random direction: the mean of a normed vector, say, does not depend on it.
    return sum((rng.standard_normal(leaf.shape) * leaf).sum() for leaf in jax.tree.leaves(out)), out

  def on_mesh(params):
    with activations.constrained(rules, mesh):
      return jax.value_and_grad(loss, has_aux=True)(params)

  (_, out), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
  places = shardings(params, "fsdp+tensor", mesh)
  assert sum(not place.is_fully_replicated for place in jax.tree.leaves(places)) > 4
  (_, split), split_grads = jax.jit(on_mesh, in_shardings=(places,))(jax.device_put(params, places))
  close(split, out, 1e-5)
  largest = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(grads))
  for a, b in zip(jax.tree.leaves(split_grads), jax.tree.leaves(grads), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest)
