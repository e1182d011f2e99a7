"""Models with the backward pass of a platform: the gradients of the plain model, and its program elsewhere."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import zoo
from tests.filled import filled
from zoo.config import registry
from zoo.kernels import with_backward
from zoo.layers.ordered_gradients import ordered_gradients
from zoo.layers.products import with_products
from zoo.objectives.objective import value_and_grad
from zoo.sharding import make_mesh

ONE = make_mesh({"data": 1}, jax.devices()[:1])
RNG = np.random.default_rng(0)
ROWS = 8
TEXT = dict(vocab_size=83, dim=6, depth=2, num_heads=2)
# Objective, model, its sizes, and a batch.
MODELS = {
  "gpt": ("causal_lm", dict(TEXT, max_length=41), {"tokens": RNG.integers(0, 83, (ROWS, 42), np.int32)}),
  "t5": (
    "seq2seq",
    dict(TEXT, gated=True, tied=False, scan=True),
    {name: RNG.integers(1, 83, (ROWS, 5), np.int32) for name in ("tokens", "target_tokens")},
  ),
  "vit": (
    "classify",
    dict(image_size=6, patch_size=2, dim=6, depth=2, num_heads=3, num_classes=5),
    {"image": RNG.standard_normal((ROWS, 6, 6, 3), np.float32), "label": RNG.integers(0, 5, ROWS, np.int32)},
  ),
}  # fmt: skip


def gradients(objective, model, params, batch, sharding=None):
  run = value_and_grad(registry.build("objectives", {"name": objective}, model))
  batch = batch if sharding is None else jax.device_put(batch, sharding)
  (loss, _), grads = jax.jit(run)(params, batch)
  return loss, grads


def assert_equal(one, other):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), one, other)


@pytest.mark.parametrize("family", MODELS)
def test_gradients_are_those_of_the_plain_model(family):
  objective, sizes, batch = MODELS[family]
  model = zoo.build(family, **sizes)
  params = filled(model, *model.example(), seed=1)
  ordered = with_backward(model, ONE)
  assert ordered != model and ordered.spec == model.spec
  assert_equal(gradients(objective, ordered, params, batch), gradients(objective, model, params, batch))


def test_several_devices_keep_their_program_and_would_have_the_same_gradients():
  objective, sizes, batch = MODELS["gpt"]
  model, mesh = zoo.build("gpt", **sizes), make_mesh({"data": 8})
  assert with_backward(model, mesh) is model
  params = filled(model, *model.example(), seed=1)
  by_row = NamedSharding(mesh, P("data"))
  ordered = with_products(model, ordered_gradients)
  assert_equal(gradients(objective, ordered, params, batch, by_row), gradients(objective, model, params, batch))


def test_gradients_of_bfloat16_are_summed_in_float32_all_the_same():
  objective, sizes, batch = MODELS["gpt"]
  model = zoo.build("gpt", **sizes, dtype="bfloat16")
  params = filled(model, *model.example(), seed=1)
  loss, grads = gradients(objective, with_backward(model, ONE), params, batch)
  plain_loss, plain = gradients(objective, model, params, batch)
  np.testing.assert_array_equal(loss, plain_loss)
  jax.tree.map(np.testing.assert_array_equal, grads, plain)
  assert all(array.dtype == np.float32 for array in jax.tree.leaves(grads))
