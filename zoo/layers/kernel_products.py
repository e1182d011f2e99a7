"""Matrix products and convolutions whose kernel gradients are float32 although activations are bfloat16 or float16.

By JAX's own rules the gradient of a float32 kernel that was cast for a product is rounded to the activations' precision
and, on a mesh, summed over devices in that. Here it leaves the product in float32, the precision in which hardware adds
up products anyway, unless `kernel_gradients_in` says otherwise. Forward passes are those of plain products.
"""

import contextlib
import contextvars
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.layers.mixed_precision import narrower

_GRADIENTS = contextvars.ContextVar("kernel_gradients", default="float32")


@contextlib.contextmanager
def kernel_gradients_in(dtype):
  """Context that sets the dtype in which kernel gradients are returned, and so summed across devices.

  With "bfloat16" half as many bytes cross. Each device still sums its own tokens in float32, and other gradients
  (of embedding tables, biases, scales) cross in float32.
  """
  token = _GRADIENTS.set(jnp.dtype(dtype).name)
  try:
    yield
  finally:
    _GRADIENTS.reset(token)


def dot(x, kernel, contract=None, *, cast=None, dot_general=None, **options):
  """The product of x and a kernel, in x's dtype; the kernel's gradient leaves its product in float32.

  Args:
    x: [..., inputs]
    kernel: [inputs, outputs], or any shape that fits `contract`.
    contract: the contracted axes of x and of the kernel; the last and the first if None.
    cast: the kernel in x's dtype, if already computed; the kernel itself then only receives the gradient.
    dot_general: replacement of `jax.lax.dot_general`, or None.
    options: `preferred_element_type` and `precision`, as of `jax.lax.dot_general`.

  Returns:
    [..., outputs]

  >>> dot(jnp.ones((2, 3), "bfloat16"), jnp.ones((3, 5))).dtype
  dtype(bfloat16)
  """
  of_x, of_kernel = ((x.ndim - 1,), (0,)) if contract is None else contract
  multiply = jax.lax.dot_general if dot_general is None else dot_general
  if not narrower(x.dtype, kernel.dtype):
    return multiply(x, kernel.astype(x.dtype), ((of_x, of_kernel), ((), ())), **options)
  how = _Dot(_GRADIENTS.get(), kernel.dtype, tuple(of_x), tuple(of_kernel), multiply, tuple(options.items()))
  return _product(x, kernel.astype(x.dtype) if cast is None else cast, kernel, (), how)


def ragged_dot(x, kernels, sizes, *, cast=None):
  """`jax.lax.ragged_dot`, as `dot` is `jax.lax.dot_general`: [rows, inputs], [groups, inputs, outputs], int32 [groups]

  >>> ragged_dot(jnp.ones((3, 2), "bfloat16"), jnp.ones((2, 2, 1)), jnp.array([1, 2]))[:, 0]
  Array([2, 2, 2], dtype=bfloat16)
  """
  if not narrower(x.dtype, kernels.dtype):
    return jax.lax.ragged_dot(x, kernels.astype(x.dtype), sizes)
  how = _Ragged(_GRADIENTS.get(), kernels.dtype)
  return _product(x, kernels.astype(x.dtype) if cast is None else cast, kernels, (sizes,), how)


def convolve(x, kernel, strides=1, padding="SAME"):
  """Convolution whose kernel gradient is computed in float32, like `dot`.

  Args:
    x: [batch, *sizes, inputs]
    kernel: [*kernel_size, inputs, outputs]
    strides: the same along every axis of sizes.
    padding: "SAME", or how many zeros on either side of every axis.

  Returns:
    [batch, *sizes, outputs]

  >>> convolve(jnp.ones((1, 4, 1), "bfloat16"), jnp.ones((3, 1, 1)), padding=1)[0, :, 0]
  Array([2, 3, 3, 2], dtype=bfloat16)
  """
  strides = (strides,) * (x.ndim - 2)
  pads = [(padding, padding)] * len(strides)
  if padding == "SAME":
    pads = jax.lax.padtype_to_pads(x.shape[1:-1], kernel.shape[:-2], strides, padding)
  how = _Convolution(_GRADIENTS.get(), kernel.dtype, strides, tuple((int(low), int(high)) for low, high in pads))
  if not narrower(x.dtype, kernel.dtype):
    return how(x, kernel.astype(x.dtype))
  return _product(x, kernel.astype(x.dtype), kernel, (), how)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _product(x, cast, kernel, others, how):
  """The product of x and `cast`, whose gradient goes to `kernel`, which is unused in the forward pass."""
  return how(x, cast, *others)


def _forward(x, cast, kernel, others, how):
  return how(x, cast, *others), (x, cast, others)


def _backward(how, residuals, cotangent):
  x, cast, others = residuals
  d_x, d_kernel = how.gradients(x, cast, *others, cotangent)
  return d_x.astype(x.dtype), None, d_kernel.astype(how.dtype), None


_product.defvjp(_forward, _backward)


def _leaving_in(dtype, product, x, y, *others, **options):
  """The product, in `dtype`."""
  run = functools.partial(product, **{**options, "preferred_element_type": jnp.dtype(dtype)})
  narrow = lambda x, y: run(x, y, *others)
  # XLA's CPU backend computes in float32 anyway, but lacks some products of bfloat16 that give float32.
  wide = lambda x, y: run(*(array.astype(jnp.promote_types(array.dtype, dtype)) for array in (x, y)), *others)
  return jax.lax.platform_dependent(x, y, cpu=wide, default=narrow)


@dataclasses.dataclass(frozen=True)
class _Dot:
  """`leaves_in`: dtype of the product that gives the kernel's gradient. `dtype`: of the kernel."""

  leaves_in: str
  dtype: Any
  of_x: tuple
  of_kernel: tuple
  multiply: Callable
  options: tuple

  def __call__(self, x, kernel):
    return self.multiply(x, kernel, ((self.of_x, self.of_kernel), ((), ())), **dict(self.options))

  def gradients(self, x, kernel, cotangent):
    """JAX's own gradients, except for the dtype of the second."""
    of_rows = [axis for axis in range(x.ndim) if axis not in self.of_x]
    outputs = [axis for axis in range(kernel.ndim) if axis not in self.of_kernel]
    rows = list(range(len(of_rows)))
    in_slope = list(range(len(rows), cotangent.ndim))
    options = dict(self.options)
    d_x = jax.lax.dot_general(cotangent, kernel, ((in_slope, outputs), ((), ())), **options)
    d_x = d_x.transpose(np.argsort([*of_rows, *np.take(self.of_x, np.argsort(self.of_kernel))]))
    d_kernel = _leaving_in(self.leaves_in, jax.lax.dot_general, cotangent, x, ((rows, of_rows), ((), ())), **options)
    return d_x, d_kernel.transpose(np.argsort([*outputs, *np.take(self.of_kernel, np.argsort(self.of_x))]))


@dataclasses.dataclass(frozen=True)
class _Ragged:
  """As `_Dot`."""

  leaves_in: str
  dtype: Any

  def __call__(self, x, kernels, sizes):
    return jax.lax.ragged_dot(x, kernels, sizes)

  def gradients(self, x, kernels, sizes, cotangent):
    d_x = jax.lax.ragged_dot(cotangent, kernels.swapaxes(1, 2), sizes)
    by_group = jax.lax.RaggedDotDimensionNumbers((((0,), (0,)), ((), ())), [0], [])
    return d_x, _leaving_in(self.leaves_in, jax.lax.ragged_dot_general, x, cotangent, sizes, by_group)


@dataclasses.dataclass(frozen=True)
class _Convolution:
  """As `_Dot`."""

  leaves_in: str
  dtype: Any
  strides: tuple
  pads: tuple

  def __call__(self, x, kernel):
    n = x.ndim - 2
    outside = (0, n + 1, *range(1, n + 1))
    dimensions = jax.lax.ConvDimensionNumbers(outside, (n + 1, n, *range(n)), outside)
    return jax.lax.conv_general_dilated(x, kernel, self.strides, self.pads, dimension_numbers=dimensions)

  def gradients(self, x, kernel, cotangent):
    """The kernel's gradient is a convolution of x with the output's gradient, dilated by the strides."""
    (d_x,) = jax.linear_transpose(lambda x: self(x, kernel), x)(cotangent)
    n = x.ndim - 2
    sizes = zip(x.shape[1:-1], cotangent.shape[1:-1], kernel.shape[:-2], self.strides, self.pads, strict=True)
    pads = [(low, taps + (steps - 1) * stride - size - low) for size, steps, taps, stride, (low, _) in sizes]
    inside = (n + 1, 0, *range(1, n + 1))
    d_kernel = _leaving_in(
      self.leaves_in,
      jax.lax.conv_general_dilated,
      x,
      cotangent,
      (1,) * n,
      pads,
      rhs_dilation=self.strides,
      dimension_numbers=jax.lax.ConvDimensionNumbers(inside, inside, (n, n + 1, *range(n))),
    )
    return d_x, d_kernel
