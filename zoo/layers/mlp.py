"""Position-wise feed-forward networks, and activations by name."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from zoo.layers import initial
from zoo.layers.dense import Dense
from zoo.layers.mixed_precision import narrower


def quick_gelu(x):
  """x * sigmoid(1.702 x), which OpenAI's CLIP uses for gelu: https://github.com/openai/CLIP, clip/model.py."""
  return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS = {
  "relu": jax.nn.relu,
  "gelu": functools.partial(jax.nn.gelu, approximate=False),  # x * Phi(x), exactly
  "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),  # `gelu` in GPT-2's code
  "quick_gelu": quick_gelu,
  "silu": jax.nn.silu,
}


def activation(name):
  """The activation function `name`; functions are returned unchanged."""
  if callable(name):
    return name
  if name not in ACTIVATIONS:
    raise ValueError(f"activation is {name!r}. It may be a function or: {', '.join(ACTIVATIONS)}.")
  return ACTIVATIONS[name]


def gated(activate, gate, up):
  """activate(gate) * up, in float32 and rounded once; the backward pass keeps gate and up and recomputes the rest.

  >>> gated(jax.nn.silu, jax.numpy.ones(2, "bfloat16"), jax.numpy.ones(2, "bfloat16"))
  Array([0.730469, 0.730469], dtype=bfloat16)
  """
  if not narrower(gate.dtype, "float32"):
    return activate(gate) * up
  wide = lambda gate, up: (activate(gate.astype("float32")) * up.astype("float32")).astype(gate.dtype)
  return jax.checkpoint(wide)(gate, up)


class MLP(nn.Module):
  """down(activation(up(x))). [..., dim] -> [..., dim]; dot_general: as in `zoo.layers.attention.Attention`."""

  mlp_dim: int
  activation: str | Callable = "gelu"
  use_bias: bool = True
  dropout: float = 0.0  # of the hidden values
  dtype: Any = None
  kernel_init: Callable = initial.lecun_normal()
  down_init: Callable = initial.lecun_normal()
  dot_general: Callable | None = None

  @nn.compact
  def __call__(self, x, *, train=False):
    dense = functools.partial(Dense, use_bias=self.use_bias, dtype=self.dtype, dot_general=self.dot_general)
    h = dense(self.mlp_dim, kernel_init=self.kernel_init, name="up")(x)
    h = nn.Dropout(self.dropout)(activation(self.activation)(h), deterministic=not train)
    return dense(x.shape[-1], kernel_init=self.down_init, name="down")(h)


class GatedMLP(nn.Module):
  """down(activation(gate(x)) * up(x)), [..., dim] -> [..., dim]. GEGLU, SwiGLU: https://arxiv.org/abs/2002.05202"""

  mlp_dim: int
  activation: str | Callable = "silu"
  use_bias: bool = False
  dropout: float = 0.0  # of the hidden values
  dtype: Any = None
  kernel_init: Callable = initial.lecun_normal()
  down_init: Callable = initial.lecun_normal()
  dot_general: Callable | None = None

  @nn.compact
  def __call__(self, x, *, train=False):
    dense = functools.partial(Dense, use_bias=self.use_bias, dtype=self.dtype, dot_general=self.dot_general)
    gate = dense(self.mlp_dim, kernel_init=self.kernel_init, name="gate")(x)
    h = gated(activation(self.activation), gate, dense(self.mlp_dim, kernel_init=self.kernel_init, name="up")(x))
    h = nn.Dropout(self.dropout)(h, deterministic=not train)
    return dense(x.shape[-1], kernel_init=self.down_init, name="down")(h)
