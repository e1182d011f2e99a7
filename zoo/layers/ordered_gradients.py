"""Dense products with a backward pass ordered for XLA's CPU backend.

By JAX's own rules XLA merges the elementwise work before a product of the backward pass, such as a norm's gradient and
the sum over residual branches, into a transposed copy of its operand. That sum is formed anew for every layer, and the
transposed writes are slow. A barrier leaves each gradient as it is, formed once; a transposition that remains is that
of the smaller operand or of the result.
"""

import functools
import math

import jax


def ordered_gradients(x, kernel, dimension_numbers, precision=None, preferred_element_type=None):
  """As `jax.lax.dot_general` without batch dimensions: x [..., inputs], kernel [inputs, outputs] -> [..., outputs]

  Inputs and outputs may have several dimensions, and the kernel may have its inputs last, as a tied table does. Values
  are those of `jax.lax.dot_general`, gradients up to rounding. Only reverse-mode derivatives exist, of any order.

  >>> import jax.numpy as jnp
  >>> x, kernel, contract = jnp.ones((2, 3)), jnp.ones((3, 5)), (((1,), (0,)), ((), ()))
  >>> jax.grad(lambda kernel: ordered_gradients(x, kernel, contract).sum())(kernel).shape
  (3, 5)
  """
  (of_x, of_kernel), _ = dimension_numbers
  options = {"precision": precision, "preferred_element_type": preferred_element_type}
  count = len(of_kernel)
  first = tuple(of_kernel) == tuple(range(count))
  last = tuple(of_kernel) == tuple(range(kernel.ndim - count, kernel.ndim))
  if tuple(of_x) != tuple(range(x.ndim - count, x.ndim)) or not (first or last):
    return jax.lax.dot_general(x, kernel, dimension_numbers, **options)
  rows, width = x.shape[: x.ndim - count], math.prod(x.shape[x.ndim - count :])
  outputs = kernel.shape[count:] if first else kernel.shape[: kernel.ndim - count]
  # In two dimensions: of a kernel with more XLA would make a copy.
  matrix = kernel.reshape(width, -1) if first else kernel.reshape(-1, width)
  y = _product(x.reshape(-1, width), matrix, 0 if first else 1, tuple(options.items()))
  return y.reshape(*rows, *outputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _product(x, kernel, axis, options):
  """x [rows, inputs] times a kernel whose axis `axis` is that of the inputs: [rows, outputs]"""
  return jax.lax.dot_general(x, kernel, (((1,), (axis,)), ((), ())), **dict(options))


def _forward(x, kernel, axis, options):
  return _product(x, kernel, axis, options), (x, kernel)


def _backward(axis, options, residuals, cotangent):
  x, kernel = residuals
  cotangent = jax.lax.optimization_barrier(cotangent)
  d_x = jax.lax.dot_general(cotangent, kernel, (((1,), (1 - axis,)), ((), ())), **dict(options))
  by_row = (((0,), (0,)), ((), ()))
  # XLA's routine is quicker with the wider operand second.
  inputs_first = cotangent.shape[1] >= x.shape[1]
  left, right = (x, cotangent) if inputs_first else (cotangent, x)
  d_kernel = jax.lax.dot_general(left, right, by_row, **dict(options))
  if inputs_first != (axis == 0):
    # Without a barrier XLA swaps the operands to save the transposition.
    d_kernel = jax.lax.optimization_barrier(d_kernel).T
  return d_x.astype(x.dtype), d_kernel.astype(kernel.dtype)


_product.defvjp(_forward, _backward)
