import jax
import jax.numpy as jnp
import pytest

from zoo.objectives.objective import Objective
from zoo.perf.activation_memory import saved_activation_bytes

ROWS, DIM, DEPTH = 6, 5, 3
PARAMS = {"w": jax.ShapeDtypeStruct((DEPTH, DIM, DIM), jnp.float32)}
BATCH = {"x": jax.ShapeDtypeStruct((ROWS, DIM), jnp.float32)}


def objective(remat):
  """Layers h -> sin(h @ w) whose weights are rounded to bfloat16; what counts is the sum of it all."""

  def layer(h, w):
    return jnp.sin(h @ w.astype(jnp.bfloat16).astype(jnp.float32)), None

  def forward(params, batch, rng=None, context=None):
    policy = {"full": jax.checkpoint, "none": lambda body: body}[remat]
    return {"out": jax.lax.scan(policy(layer), batch["x"], params["w"])[0]}

  return Objective(lambda rng, batch: None, forward, lambda outputs: (outputs["out"].sum(), {}))


def count(remat, accumulate=1):
  return saved_activation_bytes(objective(remat), PARAMS, BATCH, jax.random.key(0), accumulate)


def test_what_each_layer_was_given_waits_for_the_backward_pass():
  # Of the layers: their inputs. Rounded weights are made of parameters alone.
  assert count("full") == DEPTH * ROWS * DIM * 4


def test_without_rematerialisation_what_the_sine_was_given_waits_too():
  assert count("none") == 2 * DEPTH * ROWS * DIM * 4


@pytest.mark.parametrize("remat", ["full", "none"])
def test_of_a_batch_in_parts_one_waits(remat):
  assert count(remat, accumulate=3) * 3 == count(remat)
