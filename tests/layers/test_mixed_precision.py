"""Parameters that many tokens share: gradients are summed in float32, forward passes are unchanged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers.mixed_precision import add, add_rows, broadcast, look_up, multiply, pick

MANY = 100_000  # A bfloat16 sum of ones stops at 256.
USES = {
  "a bias": (lambda bias: add(jnp.ones((MANY, 2), "bfloat16"), bias), (2,)),
  "a scale": (lambda scale: multiply(jnp.ones((MANY, 2), "bfloat16"), scale), (2,)),
  "a token": (lambda token: broadcast(token, (MANY, 1, 2), "bfloat16"), (1, 2)),
  "positions": (lambda table: add(jnp.ones((MANY // 5, 5, 2), "bfloat16"), table), (5, 2)),
}


@pytest.mark.parametrize("use", USES)
def test_what_many_tokens_share_learns_from_all_of_them(use):
  function, shape = USES[use]
  grads = jax.jit(jax.grad(lambda x: function(x).sum(dtype=jnp.float32)))(jnp.zeros(shape))
  np.testing.assert_array_equal(grads, np.full(shape, MANY * 2 / np.prod(shape)))


def test_a_row_learns_from_every_token_that_it_is_of():
  index = np.random.default_rng(0).choice(3, MANY, p=[0.9, 0.1, 0.0])
  grads = jax.jit(jax.grad(lambda table: look_up(table, index, "bfloat16").sum(dtype=jnp.float32)))(jnp.zeros((3, 2)))
  np.testing.assert_array_equal(grads, np.repeat(np.bincount(index, minlength=3)[:, None], 2, 1))


def test_a_state_that_was_picked_many_times_gets_all_that_comes_back():
  index = jnp.zeros((1, 4096), jnp.int32)
  for function in (lambda x: pick(x, index), lambda x: look_up(x[0], index)):
    grads = jax.grad(lambda x, f=function: f(x).sum(dtype=jnp.float32))(jnp.ones((1, 3, 2), "bfloat16"))
    np.testing.assert_array_equal(grads[0].astype(jnp.float32), [[4096, 4096], [0, 0], [0, 0]])


def test_rows_are_added_in_float32_and_take_back_what_came_to_their_place():
  x, index = jnp.ones((4096, 2), "bfloat16"), jnp.ones(4096, jnp.int32)
  y, pull = jax.vjp(lambda x: add_rows(x, index, 3), x)
  np.testing.assert_array_equal(y.astype(jnp.float32), [[0, 0], [4096, 4096], [0, 0]])
  np.testing.assert_array_equal(pull(jnp.full((3, 2), 7, "bfloat16"))[0], np.full((4096, 2), 7))


def test_forward_passes_cast_first_and_derivatives_go_both_ways():
  rng = np.random.default_rng(1)
  x, bias = jnp.asarray(rng.normal(size=(5, 3)), "bfloat16"), jnp.asarray(rng.normal(size=3), jnp.float32)
  np.testing.assert_array_equal(add(x, bias), x + bias.astype("bfloat16")[None])
  np.testing.assert_array_equal(multiply(x, bias), x * bias.astype("bfloat16")[None])
  table, index = jnp.asarray(rng.normal(size=(7, 3)), jnp.float32), jnp.array([[6, 0, 9]])
  np.testing.assert_array_equal(look_up(table, index, "bfloat16")[0, :2], table.astype("bfloat16")[index[0, :2]])
  assert jnp.isnan(look_up(table, index)[0, 2]).all()
  for function, value in ((lambda bias: add(x, bias), bias), (lambda table: look_up(table, index[:, :2]), table)):
    tangent = jax.jvp(function, (value,), (value,))[1]
    np.testing.assert_allclose(
      (tangent.astype(jnp.float32) ** 2).sum(),
      jnp.vdot(jax.vjp(function, value)[1](tangent)[0], value),
      rtol=1e-2,
    )


def test_float32_is_left_as_it_is():
  x, bias = jnp.ones((5, 3)), jnp.arange(3.0)
  program = str(jax.make_jaxpr(jax.grad(lambda bias: (add(x, bias) * multiply(x, bias)).sum()))(bias))
  assert "convert" not in program and "custom" not in program
