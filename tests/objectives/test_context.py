"""What a step knows beside parameters and batch: carried collections, frozen models, penalties."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.objectives.test_objective import assert_close
from zoo import sharding
from zoo.layers.stack import ScannedStack, Stack
from zoo.objectives.classify import classify
from zoo.objectives.objective import Context, Objective, apply, value_and_grad

RNG = jax.random.key(5)
ROWS, CLASSES = 16, 3


class Remembers(nn.Module):
  """A layer with statistics that all rows share, which sees what it made of the rows of the batch before."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(nn.Dense(7, name="dense")(x))
    memory = self.variable("memory", "before", jnp.zeros, x.shape)
    y = jnp.tanh(x + nn.Dense(7, use_bias=False, name="read")(memory.value))
    if not self.is_initializing():
      memory.value = jax.lax.stop_gradient(y)
    return y


class Remembering(nn.Module):
  """A classifier of such layers, with outputs as classifiers of the zoo have them."""

  stack: nn.Module
  carries = {"batch_stats": "shared", "memory": "rows"}
  preprocessing = {}

  @nn.compact
  def __call__(self, image, train=False):
    x = nn.Dense(7, name="dense")(image.reshape(len(image), -1))
    return {"logits": nn.Dense(CLASSES, name="classify")(self.stack(x, train=train))}


LOOP, SCAN = Remembering(Stack(Remembers(), 1)), Remembering(ScannedStack(Remembers(), 2, remat="full"))


def batch_of(seed, rows=ROWS):
  rng = np.random.default_rng(seed)
  return {
    "image": rng.normal(size=(rows, 2, 2, 1)).astype(np.float32),
    "label": rng.integers(0, CLASSES, rows).astype(np.int32),
  }


def by_rows(batch, devices):
  mesh = sharding.make_mesh({"data": devices}, jax.devices()[:devices])
  return jax.device_put(batch, sharding.batch_sharding(mesh))


def started(model):
  objective, batch = classify(model), batch_of(0)
  return objective, objective.init(RNG, batch), objective.carry(RNG, batch)


def differentiated_directly(objective, params, batch, parts, carry):
  """The same loss written down without scans, part after part."""

  def loss(params, carry):
    outputs, shared, memories = [], carry["shared"], []
    for i in range(parts):
      part = jax.tree.map(lambda x, i=i: x[i::parts], batch)
      before = {"shared": shared, "rows": jax.tree.map(lambda x, i=i: x[..., i::parts, :], carry["rows"])}
      given = objective.forward(params, part, jax.random.fold_in(RNG, i), Context(carry=before))
      shared, memory = (given["carry"][kind] for kind in ("shared", "rows"))
      memories.append(memory)
      outputs.append({name: x for name, x in given.items() if name != "carry"})
    joined = jax.tree.map(lambda *x: jnp.stack(x, 1).reshape(-1, *x[0].shape[1:]), *outputs)
    value, metrics = objective.reduce(joined)
    # The batch is a memory's last axis but one, whether its layer is scanned or not.
    rows = jax.tree.map(lambda *x: jnp.stack(x, -2).reshape(*x[0].shape[:-2], -1, x[0].shape[-1]), *memories)
    return value, (metrics, {"shared": shared, "rows": rows})

  return jax.value_and_grad(loss, has_aux=True)(params, carry)


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("model", [LOOP, SCAN], ids=["loop", "scan"])
def test_what_is_carried_goes_from_part_to_part_and_batch_to_batch(model, parts, devices):
  objective, params, carry = started(model)
  want_carry = carry
  grad = jax.jit(value_and_grad(objective, parts))
  for seed in range(2):
    batch = batch_of(seed)
    (want, (_, want_carry)), want_grads = differentiated_directly(objective, params, batch, parts, want_carry)
    (loss, (metrics, carry)), grads = grad(params, by_rows(batch, devices), RNG, Context(carry=carry))
    assert_close((loss, metrics["loss"], grads, carry), (want, want, want_grads, want_carry), 2e-5)
  assert jax.tree.leaves(carry)


def test_what_a_model_carries_changes_what_it_computes():
  objective, params, carry = started(LOOP)
  losses = []
  for _ in range(2):
    loss, (_, carry) = objective.loss_and_carry(params, batch_of(0), None, Context(carry=carry))
    losses.append(float(loss))
  assert losses[0] != losses[1]


class Dense(nn.Module):
  @nn.compact
  def __call__(self, x, train=False):
    return nn.Dense(4, name="dense")(x)


def distilled(student, teacher):
  """Mean squared distance from a teacher that does not learn, and a pull towards zero that grows with the steps."""

  def forward(params, batch, rng=None, context=None):
    target = apply(teacher, context.frozen["teacher"], batch["x"])
    return {"distance": ((apply(student, params, batch["x"], rng=rng) - target) ** 2).sum(-1)}

  def penalty(params, context):
    size = sum((x**2).sum() for x in jax.tree.leaves(params))
    return 0.01 * context.step * size, {"size": size}

  init = lambda rng, batch: student.init(rng, batch["x"])["params"]
  return Objective(init, forward, lambda outputs: (outputs["distance"].mean(), {}), penalty=penalty)


@pytest.mark.parametrize("parts, devices", [(1, 1), (2, 8), (4, 1)])
def test_frozen_models_teach_and_penalties_know_the_step(parts, devices):
  model = Dense()
  x = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
  student, teacher = (model.init(jax.random.key(i), x)["params"] for i in range(2))
  objective = distilled(model, model)
  context = Context(step=jnp.int32(7), frozen={"teacher": teacher})

  def direct(params):
    distance = ((apply(model, params, x) - apply(model, teacher, x)) ** 2).sum(-1).mean()
    return distance + 0.07 * sum((leaf**2).sum() for leaf in jax.tree.leaves(params))

  want, want_grads = jax.value_and_grad(direct)(student)
  batch = by_rows({"x": x}, devices)
  (loss, (metrics, carry)), grads = jax.jit(value_and_grad(objective, parts))(student, batch, None, context)
  assert_close((loss, grads), (want, want_grads))
  assert set(metrics) == {"size"} and carry == {}


@pytest.mark.parametrize("parts, devices", [(1, 1), (2, 8), (4, 1)])
def test_two_players_in_one_loss_get_the_gradients_of_two_losses(parts, devices):
  """L_G(G, stop(D)) + L_D(stop(G), D): so no second step function is needed."""
  model = Dense()
  x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
  params = {name: model.init(jax.random.key(i), x)["params"] for i, name in enumerate(("generator", "discriminator"))}
  stop = jax.lax.stop_gradient

  def generator_loss(g, d, x):
    return jax.nn.softplus(-apply(model, d, apply(model, g, x))).mean(-1)

  def discriminator_loss(g, d, x):
    return (jax.nn.softplus(apply(model, d, apply(model, g, x))) + jax.nn.softplus(-apply(model, d, x))).mean(-1)

  def objective(**losses):
    def forward(params, batch, rng=None, context=None):
      g, d = params["generator"], params["discriminator"]
      return {name: loss(g, d, batch["x"]) for name, loss in losses.items()}

    return Objective(lambda *_: params, forward, lambda outputs: (sum(x.mean() for x in outputs.values()), {}))

  def gradients(**losses):
    # Not compiled: XLA fuses other programs in other ways, and rounds once more or less.
    with jax.disable_jit():
      return value_and_grad(objective(**losses), parts)(params, by_rows({"x": x}, devices))[1]

  both = gradients(
    generator=lambda g, d, x: generator_loss(g, stop(d), x),
    discriminator=lambda g, d, x: discriminator_loss(stop(g), d, x),
  )
  alone = {"generator": generator_loss, "discriminator": discriminator_loss}
  want = {name: gradients(**{name: loss})[name] for name, loss in alone.items()}
  jax.tree.map(np.testing.assert_array_equal, both, want)
