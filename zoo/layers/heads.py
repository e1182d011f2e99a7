"""What models make of their hidden states: logits over a vocabulary, or classes."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype

from zoo.layers import initial
from zoo.layers.embeddings import unembed
from zoo.layers.kernel_products import dot


class TiedLogits(nn.Module):
  """scale * x @ embedding.T, by the table that looks tokens up.

  Args:
    scale: of x.
    fixed_bias: whether a vector is added that does not learn: weights that come from other programs have one.
  """

  scale: float = 1.0
  fixed_bias: bool = False

  @nn.compact
  def __call__(self, x, embed):
    """[..., dim] -> float32 [..., vocab_size]"""
    logits = unembed(embed, x if self.scale == 1 else x * self.scale)
    if not self.fixed_bias:
      return logits
    bias = jax.lax.stop_gradient(self.param("bias", initial.zeros, logits.shape[-1:]))
    return logits + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


class OwnLogits(nn.Module):
  """scale * x @ kernel: an output layer of its own; dot_general: as of `zoo.layers.attention.Attention`."""

  vocab_size: int
  scale: float = 1.0
  dtype: Any = None
  kernel_init: Callable = initial.lecun_normal()
  dot_general: Callable | None = None

  @nn.compact
  def __call__(self, x, embed):
    """[..., dim] -> float32 [..., vocab_size]; `embed` is not used."""
    kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.vocab_size))
    x = x if self.scale == 1 else x * self.scale
    x = x.astype(canonicalize_dtype(x, kernel, dtype=self.dtype))
    return dot(x, kernel, dot_general=self.dot_general, preferred_element_type=jnp.float32)


class TanhHead(nn.Module):
  """out(tanh(dense(x))): classes of a vector, with dropout before each layer."""

  dense: nn.Module
  out: nn.Module
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, *, train=False):
    """[..., dim] -> float32 [..., num_classes]"""
    drop = nn.Dropout(self.dropout, deterministic=not train)
    return self.out(drop(nn.tanh(self.dense(drop(x))))).astype(jnp.float32)
