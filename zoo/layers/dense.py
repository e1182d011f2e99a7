"""Flax's dense layers and convolutions, with the gradients of `zoo.layers.mixed_precision`.

Parameters, initial values and forward passes are Flax's. What differs is the precision in which float32 parameters get
their gradients where activations have fewer bits.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
from flax.linen.dtypes import canonicalize_dtype

from zoo.layers import initial
from zoo.layers.kernel_products import convolve, dot
from zoo.layers.mixed_precision import add


class Dense(nn.Dense):
  """x @ kernel + bias over the last axis: [..., inputs] -> [..., features]. Arguments as `flax.linen.Dense`.

  >>> import jax
  >>> import jax.numpy as jnp
  >>> layer = Dense(5, dtype="bfloat16")
  >>> params = layer.init(jax.random.key(0), jnp.ones((2, 3)))["params"]
  >>> {name: array.shape for name, array in params.items()}
  {'kernel': (3, 5), 'bias': (5,)}
  >>> layer.apply({"params": params}, jnp.ones((2, 3))).dtype
  dtype(bfloat16)
  """

  @nn.compact
  def __call__(self, inputs):
    kernel = self.param("kernel", self.kernel_init, (inputs.shape[-1], self.features), self.param_dtype)
    bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype) if self.use_bias else None
    x = inputs.astype(canonicalize_dtype(inputs, kernel, bias, dtype=self.dtype))
    y = dot(x, kernel, dot_general=self.dot_general)
    return y if bias is None else add(y, bias)


class DenseGeneral(nn.DenseGeneral):
  """`Dense` over one or several last axes: [..., *inputs] -> [..., *features].

  Arguments as `flax.linen.DenseGeneral`; `axis` names the last axes, in order, and `batch_dims` are none.
  """

  @nn.compact
  def __call__(self, inputs):
    features = tuple(self.features) if isinstance(self.features, Sequence) else (self.features,)
    axes = self.axis if isinstance(self.axis, Sequence) else (self.axis,)
    summed = inputs.shape[-len(axes) :]
    assert tuple(axes) == tuple(range(-len(axes), 0)) and not self.batch_dims, (self.axis, self.batch_dims)

    def flat(init: Callable, shape: tuple[int, ...]) -> Callable:
      """Draws initial values as for the flattened kernel or bias."""
      return lambda rng, whole, dtype: init(rng, shape, dtype).reshape(whole)

    size = math.prod(features)
    kernel_init = flat(self.kernel_init, (math.prod(summed), size))
    kernel = self.param("kernel", kernel_init, (*summed, *features), self.param_dtype)
    bias = self.param("bias", flat(self.bias_init, (size,)), features, self.param_dtype) if self.use_bias else None
    x = inputs.astype(canonicalize_dtype(inputs, kernel, bias, dtype=self.dtype))
    contract = tuple(range(x.ndim - len(axes), x.ndim)), tuple(range(len(axes)))
    y = dot(x, kernel, contract, dot_general=self.dot_general)
    return y if bias is None else add(y, bias)


class Conv(nn.Module):
  """A convolution over the axes between the first and the last: [batch, *sizes, inputs] -> [batch, *sizes, features]

  Args:
    features: number of output channels.
    kernel_size: of every axis.
    strides: the same along every axis.
    padding: "SAME", or the number of zeros on either side of every axis.
    dtype: computation dtype.
  """

  features: int
  kernel_size: tuple[int, ...]
  strides: int = 1
  padding: str | int = "SAME"
  dtype: Any = None
  kernel_init: Callable = initial.lecun_normal()

  @nn.compact
  def __call__(self, x):
    kernel = self.param("kernel", self.kernel_init, (*self.kernel_size, x.shape[-1], self.features))
    bias = self.param("bias", initial.zeros, (self.features,))
    x = x.astype(canonicalize_dtype(x, kernel, bias, dtype=self.dtype))
    return add(convolve(x, kernel, self.strides, self.padding), bias)
