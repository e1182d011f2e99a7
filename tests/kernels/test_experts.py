import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.kernels.experts import on_mesh, over
from zoo.layers.experts import chosen_experts
from zoo.sharding import make_mesh, shardings

MESHES = [{"expert": 4, "data": 2}, {"data": 2, "expert": 2, "model": 2}, {"expert": 2, "sequence": 4}]


def arrays(seed=0, dim=5, mlp_dim=6, experts=4, top_k=2, length=8):
  """x, chosen, weights, gate, up, down; some experts may get no token."""
  rng = np.random.default_rng(seed)
  wide, narrow = (experts, dim, mlp_dim), (experts, mlp_dim, dim)
  shapes = [(8, length, dim), (8, length, top_k), wide, wide, narrow]
  x, weights, gate, up, down = (jnp.array(rng.normal(size=shape), jnp.float32) for shape in shapes)
  chosen = jnp.array(np.argsort(rng.random((8, length, experts - seed % 2)), axis=-1)[..., :top_k], jnp.int32)
  return x, chosen, weights, gate, up, down


@pytest.mark.parametrize("axes", MESHES, ids=str)
@pytest.mark.parametrize("seed, length", [(0, 8), (1, 7)])
def test_experts_apart_give_what_experts_together_give_and_learn_the_same(axes, seed, length):
  x, chosen, *rest = arrays(seed, length=length)

  def summed(dispatch, x, weights, *kernels):
    return (dispatch(x, chosen, weights, *kernels, jax.nn.silu) ** 2).sum()

  want, found = (
    jax.jit(jax.value_and_grad(functools.partial(summed, dispatch), argnums=range(5)))(x, *rest)
    for dispatch in (chosen_experts, over(make_mesh(axes)))
  )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(np.abs(b).max())), found, want)


def test_a_model_is_changed_where_it_has_experts_to_send_tokens_to():
  sizes = dict(vocab_size=23, max_length=8, dim=8, depth=2, num_heads=2, mlp_dim=8, num_experts=4, top_k=2)
  mesh = make_mesh({"data": 2, "expert": 4})
  model = zoo.build("mixtral", **sizes, dispatch="chosen")
  assert on_mesh(model, make_mesh({"data": 8})) is model
  everywhere = zoo.build("mixtral", **sizes)
  assert on_mesh(everywhere, mesh) is everywhere
  params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8), jnp.int32))["params"]
  placed = jax.device_put(params, shardings(params, "replicated", mesh))
  tokens = jnp.array(np.random.default_rng(0).integers(0, 23, (8, 8)), jnp.int32)
  apply = lambda model, params: jax.jit(lambda p: model.apply({"params": p}, tokens))(params)
  np.testing.assert_allclose(apply(on_mesh(model, mesh), placed), apply(model, params), rtol=1e-5, atol=1e-5)


def test_no_device_ever_holds_all_experts():
  mesh = make_mesh({"expert": 8})
  inputs = arrays(experts=8, mlp_dim=64)
  spec = lambda array: jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("expert"))
  step = jax.jit(lambda *arrays: over(mesh)(*arrays, jax.nn.silu), in_shardings=tuple(map(spec, inputs)))
  text = step.lower(*inputs).compile().as_text()
  assert "f32[1,5,64]" in text and "f32[8,5,64]" not in text and "reduce-scatter" in text
