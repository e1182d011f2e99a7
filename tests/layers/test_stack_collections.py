"""Collections of layers: carried, sown and converted alike in a loop and in a scan."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.layers.test_stack import X, same, weighted
from zoo.layers.stack import ScannedStack, Stack, scanned_path, stack_layers, unstack_layers
from zoo.tree import flatten


class Carries(nn.Module):
  """Statistics that rows share, a memory of each row, and what is sown by the way."""

  @nn.compact
  def __call__(self, x, train=False):
    y = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(nn.Dense(7, name="dense")(x))
    memory = self.variable("memory", "before", jnp.zeros, x.shape)
    y = y + memory.value
    if train:
      memory.value = jax.lax.stop_gradient(jnp.tanh(y))
    self.sow("losses", "size", (y**2).mean())
    return x + jnp.tanh(y)


class Plain(nn.Module):
  """Carries nothing."""

  @nn.compact
  def __call__(self, x, train=False):
    return x + nn.Dense(7, name="other")(x)


@pytest.mark.parametrize(
  "block, depth, remat",
  [(Carries(), 3, "full"), ((Plain(), Carries(), Plain()), 8, None), ((Carries(), Plain()), 3, None)],
)
def test_scanned_layers_carry_and_sow_what_looped_ones_do(block, depth, remat):
  loop, scan = Stack(block, depth, remat=remat), ScannedStack(block, depth, remat=remat)
  x = X[:, 0]
  variables, like = (dict(jax.eval_shape(stack.init, jax.random.key(0), x)) for stack in (loop, scan))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(np.float32), variables)
  del variables["losses"]
  scanned = {name: stack_layers(tree, like[name]) for name, tree in variables.items()}
  assert jax.tree.map(jnp.shape, scanned) == {name: jax.tree.map(jnp.shape, like[name]) for name in scanned}

  def outcome(stack, variables):
    def loss(params):
      y, state = stack.apply(variables | {"params": params}, x, train=True, mutable=["batch_stats", "memory", "losses"])
      return weighted(y, np.sin), (y, state)

    (_, outcome), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    return outcome, grads

  (y, state), grads = outcome(loop, variables)
  (scanned_y, scanned_state), scanned_grads = outcome(scan, scanned)
  np.testing.assert_allclose(scanned_y, y, rtol=1e-5, atol=1e-5)
  same(unstack_layers(scanned_grads), grads)
  for name, tree in state.items():
    back = unstack_layers(scanned_state[name], like["params"])
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), back, tree)
  leaves = flatten({name: {"stack": tree} for name, tree in scanned.items() if name != "params"})
  leaves |= flatten({"stack": scanned["params"]})
  for path, array in flatten({"batch_stats": {"stack": variables["batch_stats"]}}).items():
    place, index = scanned_path(path, leaves)
    np.testing.assert_array_equal(leaves[place] if index is None else leaves[place][index], array)
