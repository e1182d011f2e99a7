import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from tests.filled import numbers
from tests.tiny import OBJECTIVES, tiny_batch
from zoo import optim
from zoo.config import registry
from zoo.objectives.objective import value_and_grad
from zoo.sharding import STRATEGIES, activations, batch_sharding, make_mesh, put_batch, shardings

SIZES = {"dim": 8, "depth": 1, "num_heads": 2}
TOWERS = {"image_dim": 8, "image_depth": 1, "image_heads": 2, "text_dim": 12, "text_depth": 1, "text_heads": 2}
TEXT = {"vocab_size": 23, "max_length": 11, **SIZES}
FAMILIES = {
  "gpt": ("causal_lm", {"vocab_size": 23, "max_length": 11, **SIZES, "depth": 2, "scan": True}),
  "bert": ("bert_pretraining", {"vocab_size": 24, "max_length": 11, **SIZES}),
  "t5": ("seq2seq", {"vocab_size": 23, **SIZES, "scan": True}),
  "mixtral": ("causal_lm", {**TEXT, "mlp_dim": 8, "num_experts": 4, "top_k": 2}),
  "vit": ("classify", {"image_size": 6, "patch_size": 3, "num_classes": 5, **SIZES}),
  "clip": (
    "contrastive",
    {"image_size": 6, "patch_size": 3, "vocab_size": 23, "max_length": 11, "embed_dim": 8, **TOWERS},
  ),
}


def training(family, change=lambda model: model, accumulate=1, **others):
  """-> init(rng) -> state, step(state, batch) -> (state, loss), as train.py has them; of the changed model."""
  name, sizes = FAMILIES[family]
  model = change(zoo.build(family, **sizes | others))
  objective = registry.build("objectives", {"name": name, **OBJECTIVES[name]}, model)
  batch = tiny_batch(rows=2)
  shapes = jax.eval_shape(objective.init, jax.random.key(0), batch)
  transform, _ = optim.optimizer(shapes, 5, learning_rate=0.01, weight_decay=0.1, clip_norm=1.0)

  def init(rng):
    params = objective.init(rng, batch)
    return {"params": params, "opt_state": transform.init(params), "step": jnp.zeros((), jnp.int32)}

  def step(state, batch):
    rng = jax.random.fold_in(jax.random.key(1), state["step"])
    (loss, _), grads = value_and_grad(objective, accumulate)(state["params"], batch, rng)
    updates, opt_state = transform.update(grads, state["opt_state"], state["params"])
    params = optax.apply_updates(state["params"], updates)
    return {"params": params, "opt_state": opt_state, "step": state["step"] + 1}, loss

  return init, step


def started(init):
  """A state whose parameters are drawn by NumPy: initial values take longer to compile than the step."""
  shapes = jax.eval_shape(init, jax.random.key(0))
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  return {**zeros, "params": jax.device_get(numbers(shapes["params"]))}


def held(state):
  """Bytes on the first device."""
  return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))


def test_state_is_born_where_it_will_live():
  init, _ = training("gpt")
  placed = shardings(jax.eval_shape(init, jax.random.key(0)), "fsdp+tensor", make_mesh({"data": 4, "model": 2}))
  compiled = jax.jit(init, out_shardings=placed).lower(jax.random.key(0)).compile()
  state = compiled(jax.random.key(0))
  assert jax.tree.all(jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), state, placed))
  whole = jax.jit(init)(jax.random.key(0))
  assert held(state) < 0.3 * held(whole)
  jax.tree.map(np.testing.assert_array_equal, state["params"], whole["params"])


@functools.lru_cache(maxsize=1)
def held_to_rules(step, mesh, keys):
  """One function for all strategies on a mesh: JAX traces it once."""
  rules = activations.parse_rules([], mesh, keys)

  def held(state, batch):
    with activations.constrained(rules, mesh):
      return step(state, batch)

  return held


def losses_of(step, state, strategy, mesh, keys=None):
  """Five steps; the batches differ. -> (losses, the state after them)."""
  placed = shardings(state, strategy, mesh)
  places = {"in_shardings": (placed, batch_sharding(mesh)), "out_shardings": (placed, None)}
  compiled = jax.jit(held_to_rules(step, mesh, keys), **places, donate_argnums=0)
  losses, state = [], jax.device_put(state, placed, may_alias=False)
  for seed in range(5):
    batch = {name: np.array(x) for name, x in tiny_batch(rows=8, seed=seed).items()}
    state, loss = compiled(state, put_batch(batch, mesh))
    losses.append(float(loss))
  return losses, state


@functools.cache
def alone(family):
  """-> the step of a family, a state to start from, and what `losses_of` them is on one device."""
  init, step = training(family)
  start = started(init)
  return step, start, losses_of(step, start, "replicated", make_mesh({"data": 1}, jax.devices()[:1]))


# Products of axes; tests/models/test_families_on_meshes.py has every family on one.
MESHES = {
  "data, sequence": ("replicated", {"data": 2, "sequence": 4}),
  "fsdp, tensor, sequence": ("fsdp+tensor", {"data": 2, "model": 2, "sequence": 2}),
  "slices, experts": ("fsdp", {"slice": 2, "data": 2, "expert": 2}),
  "experts, tensor, sequence": ("tensor", {"expert": 2, "model": 2, "sequence": 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_losses_on_1_device_and_on_8_under_every_strategy(family):
  step, start, (want, whole) = alone(family)
  assert len(set(want)) == 5
  for strategy in STRATEGIES:
    losses, state = losses_of(step, start, strategy, make_mesh({"data": 4, "model": 2}))
    np.testing.assert_allclose(losses, want, rtol=1e-5, err_msg=strategy)
    assert (held(state) < 0.75 * held(whole)) == (strategy != "replicated")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt", "mixtral"])
def test_the_same_losses_on_products_of_axes(family):
  step, start, (want, _) = alone(family)
  for name, (strategy, axes) in MESHES.items():
    losses, _ = losses_of(step, start, strategy, make_mesh(axes))
    np.testing.assert_allclose(losses, want, rtol=1e-5, err_msg=name)
