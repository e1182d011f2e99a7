"""Products with kernels in bfloat16: unchanged forward, and gradients of kernels that are never rounded to bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers.kernel_products import convolve, dot, kernel_gradients_in, ragged_dot


def drawn(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


SIZES = jnp.array([4, 0, 3], jnp.int32)
# The product, and shapes of x and of the kernel.
PRODUCTS = {
  "a dense layer": (dot, (2, 5, 3), (3, 7)),
  "to heads": (dot, (2, 5, 3), (3, 2, 7)),
  "from heads": (lambda x, kernel: dot(x, kernel, ((2, 3), (0, 1))), (2, 5, 2, 3), (2, 3, 7)),
  "experts": (lambda x, kernel: dot(x, kernel, ((2,), (1,))), (2, 5, 3), (4, 3, 7)),
  "a table": (lambda x, kernel: dot(x, kernel, ((2,), (1,))), (2, 5, 3), (7, 3)),
  "logits": (lambda x, kernel: dot(x, kernel, preferred_element_type=jnp.float32), (2, 5, 3), (3, 7)),
  "rows of experts": (lambda x, kernel: ragged_dot(x, kernel, SIZES), (7, 5), (3, 5, 2)),
  "a convolution": (convolve, (2, 5, 7, 3), (3, 3, 3, 2)),
  "one with strides": (lambda x, kernel: convolve(x, kernel, 2, 1), (2, 11, 3), (3, 3, 5)),
  "one that is not even": (lambda x, kernel: convolve(x, kernel, 3, 2), (2, 10, 3), (5, 3, 2)),
  "one that fills up": (lambda x, kernel: convolve(x, kernel, 2), (2, 10, 7, 3), (4, 2, 3, 2)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_gradients_are_those_of_the_plain_product_and_not_rounded(name):
  product, of_x, of_kernel = PRODUCTS[name]
  x, kernel = drawn(0, *of_x).astype("bfloat16"), drawn(1, *of_kernel)
  y, pull = jax.vjp(product, x, kernel)
  slope = drawn(2, *y.shape).astype(y.dtype)
  d_x, d_kernel = pull(slope)
  assert (d_x.dtype, d_kernel.dtype) == (jnp.bfloat16, jnp.float32)
  exact_y, exact = jax.vjp(product, x.astype(jnp.float32), kernel.astype("bfloat16").astype(jnp.float32))
  of_x, of_kernel = exact(slope.astype(jnp.float32))
  np.testing.assert_allclose(y.astype(jnp.float32), exact_y, rtol=1e-2, atol=1e-2)
  np.testing.assert_allclose(d_x.astype(jnp.float32), of_x, rtol=1e-2, atol=2e-2)
  np.testing.assert_allclose(d_kernel, of_kernel, rtol=1e-5, atol=1e-5)  # bfloat16 is off by 4e-3.
  with kernel_gradients_in("bfloat16"):
    rounded = jax.vjp(product, x, kernel)[1](slope)[1]
  assert rounded.dtype == jnp.float32
  np.testing.assert_array_equal(rounded, rounded.astype("bfloat16").astype(jnp.float32))
  np.testing.assert_allclose(rounded, of_kernel, rtol=1e-2, atol=1e-2)


def test_a_kernel_that_was_cast_elsewhere_learns_all_the_same():
  x, kernel = drawn(0, 5, 3).astype("bfloat16"), drawn(1, 3, 7)
  cast = kernel.astype("bfloat16")
  learns = lambda cast_to: jax.grad(lambda kernel: dot(x, kernel, cast=cast_to).sum(dtype=jnp.float32))(kernel)
  np.testing.assert_array_equal(learns(cast), learns(None))
  np.testing.assert_array_equal(dot(x, jnp.zeros_like(kernel), cast=cast), dot(x, kernel))


def test_a_kernel_between_two_products_bends_what_comes_back_to_the_first():
  """A second derivative, through the kernel in the gradient of the input."""
  x, first, last = drawn(0, 5, 3), drawn(1, 3, 4), drawn(2, 4, 2)

  def mixed(x):
    loss = lambda first, last: (dot(dot(x, first), last).astype(jnp.float32) ** 2).sum()
    return jax.jvp(lambda last: jax.grad(loss)(first, last), (last,), (last,))[1]

  exact = mixed(x)
  np.testing.assert_allclose(mixed(x.astype("bfloat16")), exact, rtol=0, atol=0.03 * abs(exact).max())


def test_examples_may_be_mapped_over_and_second_derivatives_taken():
  x, kernel = drawn(0, 4, 5, 3).astype("bfloat16"), drawn(1, 3, 7)
  loss = lambda kernel, x: (dot(x, kernel).astype(jnp.float32) ** 2).sum()
  each = jax.vmap(jax.grad(loss), (None, 0))(kernel, x)
  np.testing.assert_allclose(each.sum(0), jax.grad(loss)(kernel, x), rtol=1e-5, atol=1e-4)
  tanh = lambda kernel, x: (jnp.tanh(dot(x, kernel)).astype(jnp.float32) ** 2).sum()
  curvature = lambda x: jax.jvp(jax.grad(lambda kernel: tanh(kernel, x)), (kernel,), (drawn(2, 3, 7),))[1]
  exact = curvature(x.astype(jnp.float32))
  np.testing.assert_allclose(curvature(x), exact, rtol=0, atol=0.02 * abs(exact).max())
  twice = jax.grad(lambda kernel: jnp.vdot(jax.grad(tanh)(kernel, x), drawn(2, 3, 7)))(kernel)
  np.testing.assert_allclose(twice, exact, rtol=0, atol=0.02 * abs(exact).max())


def test_float32_is_multiplied_by_jax_itself():
  program = str(jax.make_jaxpr(jax.grad(lambda kernel: dot(drawn(0, 5, 3), kernel).sum()))(drawn(1, 3, 7)))
  assert "convert" not in program and "custom" not in program
