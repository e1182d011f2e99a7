"""Every family computes and learns the same on eight devices that split rows, texts, heads and parameters."""

import jax
import numpy as np
import pytest

import zoo
from tests.models.test_families import TINY, close, inputs, variables_of
from zoo.sharding import activations, batch_sharding, make_mesh, shardings

EVEN = {"dim": 8, "depth": 1, "heads": 2, "mlp_dim": 8, "num_heads": 2}
TWO_KINDS = ("gemma", "modernbert")  # Of layers: near texts and whole ones.


def even(sizes):
  """Sizes that two devices can split."""
  of = lambda name, size: EVEN.get(name, EVEN.get(name.rpartition("_")[2], size))
  return {name: even(size) if isinstance(size, dict) else of(name, size) for name, size in sizes.items()}


def agree(model, inputs, axes):
  """Asserts that outputs and gradients on a mesh are those of one device."""
  params, mesh = variables_of(model), make_mesh(axes)
  rules = activations.parse_rules([], mesh)

  def loss(params, inputs):
    out = model.apply({"params": params}, *inputs)
    rng = np.random.default_rng(0)  # Squares: a slope that is 0 beyond the end of a text would hide what stands there.
    return sum(((leaf - rng.standard_normal(leaf.shape)) ** 2).sum() for leaf in jax.tree.leaves(out)), out

  def on_mesh(params, inputs):
    with activations.constrained(rules, mesh):
      return jax.value_and_grad(loss, has_aux=True)(params, inputs)

  (_, out), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, inputs)
  places = shardings(params, "fsdp+tensor", mesh)
  assert sum(not place.is_fully_replicated for place in jax.tree.leaves(places)) > 4
  (_, split), split_grads = jax.jit(on_mesh, in_shardings=(places, batch_sharding(mesh)))(
    jax.device_put(params, places), inputs
  )
  close(split, out, 1e-5)
  largest = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(jax.device_get(grads)))
  for a, b in zip(jax.tree.leaves(split_grads), jax.tree.leaves(grads), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest)


@pytest.mark.slow
@pytest.mark.parametrize("family", TINY)
def test_outputs_and_gradients_are_those_of_one_device(family):
  deeper = {"depth": 2} if family in TWO_KINDS else {}
  model = zoo.build(family, **even(TINY[family]) | deeper)
  agree(model, inputs(model), {"data": 2, "model": 2, "sequence": 2})


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "t5"])
def test_so_are_those_of_a_text_that_does_not_divide(family):
  model = zoo.build(family, **even(TINY[family]))
  agree(model, [tokens[:, :5] for tokens in inputs(model)], {"data": 1, "model": 2, "sequence": 4})
