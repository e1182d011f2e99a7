"""Dense products whose gradients are ordered for CPUs: the same values, and the same gradients up to rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers.ordered_gradients import ordered_gradients

# Shapes of x and of the kernel, and the contracted axes of both.
PRODUCTS = {
  "a layer that widens": ((2, 5, 3), (3, 7), (2,), (0,)),
  "a layer that narrows": ((2, 5, 7), (7, 3), (2,), (0,)),
  "to heads": ((2, 5, 3), (3, 2, 7), (2,), (0,)),
  "from heads": ((2, 5, 2, 7), (2, 7, 3), (2, 3), (0, 1)),
  "a table": ((2, 5, 3), (11, 3), (2,), (1,)),
  "a small table": ((2, 5, 7), (3, 7), (2,), (1,)),
  "an axis in the middle": ((2, 5, 3), (2, 3, 7), (2,), (1,)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_values_and_gradients_of_any_order_are_those_of_the_plain_product(name):
  x_shape, kernel_shape, of_x, of_kernel = PRODUCTS[name]
  rng = np.random.default_rng(0)
  x, kernel = rng.standard_normal(x_shape, np.float32), rng.standard_normal(kernel_shape, np.float32)

  def derivatives(product):
    multiply = lambda x, kernel: product(x, kernel, ((of_x, of_kernel), ((), ())), preferred_element_type=jnp.float32)
    loss = lambda x, kernel: jnp.sin(multiply(x, kernel)).sum()
    slopes = jax.grad(loss, (0, 1))
    twice = jax.grad(lambda x, kernel: sum((slope**2).sum() for slope in slopes(x, kernel)), (0, 1))
    mapped = jax.vmap(jax.grad(loss, 1), (0, None))
    several = np.stack([x, 2 * x])
    return jax.jit(
      lambda x, kernel: (multiply(x, kernel), slopes(x, kernel), twice(x, kernel), mapped(several, kernel))
    )

  (y, *others), (plain_y, *plain) = (
    derivatives(product)(x, kernel) for product in (ordered_gradients, jax.lax.dot_general)
  )
  np.testing.assert_array_equal(y, plain_y)
  jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5), others, plain)


def test_gradients_have_the_dtypes_of_what_was_multiplied():
  x, kernel = jnp.ones((2, 3), "bfloat16"), jnp.ones((3, 5), "bfloat16")
  product = lambda x, kernel: ordered_gradients(x, kernel, (((1,), (0,)), ((), ())), None, jnp.float32)
  y, pull = jax.vjp(product, x, kernel)
  assert y.dtype == jnp.float32 and [slope.dtype for slope in pull(y)] == [x.dtype, kernel.dtype]


def test_products_of_the_backward_pass_read_arrays_kept_apart_by_barriers():
  x, kernel = np.ones((2, 7), np.float32), np.ones((7, 3), np.float32)
  product = lambda x, kernel: ordered_gradients(x, kernel, (((1,), (0,)), ((), ())))
  pull = jax.make_jaxpr(lambda x, kernel, slope: jax.vjp(product, x, kernel)[1](slope))(x, kernel, np.ones((2, 3)))
  names = [equation.primitive.name for equation in pull.jaxpr.eqns]
  names = [name for name in names if name in ("dot_general", "optimization_barrier")]
  assert names[-4:] == ["optimization_barrier", "dot_general", "dot_general", "optimization_barrier"], pull
