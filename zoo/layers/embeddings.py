"""Embeddings of tokens and patches. `unembed` ties an output layer to an `Embed`."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype

from zoo.layers import initial, mixed_precision
from zoo.layers.dense import Conv
from zoo.layers.kernel_products import dot
from zoo.layers.products import are_few, table_first


def unembed(embed, x):
  """Tied logits: x @ embedding.T with the table of `embed`: [..., dim] -> float32 [..., vocab_size]"""
  x = x.astype(canonicalize_dtype(x, embed.embedding, dtype=embed.dtype))
  # Of a whole vocabulary, more than half as many rows are faster as they are: the product to transpose is large.
  product = _table_first if are_few((2, *x.shape[:-1])) else getattr(embed, "dot_general", None)
  contract = (x.ndim - 1,), (1,)
  return dot(x, embed.embedding, contract, dot_general=product, preferred_element_type=jnp.float32)


def _table_first(x, table, dimension_numbers, **options):
  return table_first(x, table, **options)


class Embed(nn.Embed):
  """Token embedding whose gradient is summed in float32 for every dtype, also for tokens that occur often.

  dot_general: of the tied logits; as in `zoo.layers.attention.Attention`.

  >>> embed = Embed(11, 2, dtype="bfloat16")
  >>> params = embed.init(jax.random.key(0), jnp.zeros((1, 3), jnp.int32))["params"]
  >>> loss = lambda params: embed.apply({"params": params}, jnp.full((64, 64), 7)).sum()
  >>> jax.grad(loss)(params)["embedding"][7]
  Array([4096., 4096.], dtype=float32)
  """

  dot_general: Callable | None = None

  def __call__(self, inputs):
    """int32 [...] -> [..., features]"""
    if not jnp.issubdtype(inputs.dtype, jnp.integer):
      raise ValueError(f"Tokens are {inputs.dtype}. They must be ints.")
    if self.num_embeddings == 1:  # As in Flax.
      dtype = self.embedding.dtype if self.dtype is None else self.dtype
      return mixed_precision.broadcast(self.embedding, (*inputs.shape, self.features), dtype)
    return mixed_precision.look_up(self.embedding, inputs, self.dtype)


def look_up(embed, tokens, pad=None):
  """Token embeddings, int32 [batch, length] -> [batch, length, dim]; the one of `pad` gets no gradient."""
  x = embed(tokens)
  if pad is None:
    return x
  return jnp.where((tokens == pad)[:, :, None], jax.lax.stop_gradient(x), x)


class PaddedEmbed(Embed):
  """`Embed` whose vector for the token `pad` gets no gradient."""

  pad: int | None = None

  def __call__(self, inputs):
    """int32 [batch, length] -> [batch, length, dim]"""
    return look_up(super().__call__, inputs, self.pad)


def last(x, real=None):
  """Each example's last vector, or the last `real` one: [batch, length, dim], bool [batch, length] -> [batch, dim]"""
  if real is None:
    return x[:, -1]
  return mixed_precision.pick(x, x.shape[1] - 1 - jnp.argmax(real[:, ::-1], axis=1)[:, None])[:, 0]


def shift_right(tokens, start):
  """Teacher forcing: `tokens` shifted right after the token `start`. int32 [batch, length] -> the same"""
  return jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=start)


class PatchEmbed(nn.Module):
  """Patch embedding: one linear map for all patches. https://arxiv.org/abs/2010.11929, equation 1.

  Equal to a convolution with stride patch_size and its kernel [patch_size, patch_size, channels, dim]; as a matrix
  product it is faster, especially on CPUs. dot_general: as in `zoo.layers.attention.Attention`.
  """

  patch_size: int
  dim: int
  use_bias: bool = True
  dtype: Any = None
  kernel_init: Callable = initial.lecun_normal()
  dot_general: Callable | None = None

  @nn.compact
  def __call__(self, image):
    """[batch, height, width, channels] -> [batch, patches, dim], row by row"""
    p = self.patch_size
    batch, height, width, channels = image.shape
    if height % p or width % p:
      raise ValueError(
        f"An image of {height} x {width} does not divide into patches of patch_size {p}. Resize or crop it."
      )
    kernel = self.param("kernel", self.kernel_init, (p, p, channels, self.dim))
    bias = self.param("bias", initial.zeros, (self.dim,)) if self.use_bias else None
    image = image.astype(canonicalize_dtype(image, kernel, bias, dtype=self.dtype))
    x = image.reshape(batch, height // p, p, width // p, p, channels).swapaxes(2, 3)
    x = dot(x.reshape(batch, -1, p * p * channels), kernel.reshape(-1, self.dim), dot_general=self.dot_general)
    return x if bias is None else mixed_precision.add(x, bias)


class ConvStem(nn.Module):
  """Convolutional stem: features at a lower resolution, from which patches are cut.

  Every stage merges 2 x 2 pixels into one, then applies a 3 x 3 convolution and a gelu. With few images a Transformer
  learns more from convolved patches than from raw ones: https://arxiv.org/abs/2106.14881.
  """

  dims: tuple[int, ...]
  dtype: Any = None

  @nn.compact
  def __call__(self, image):
    """[batch, height, width, channels] -> [batch, height / 2**stages, width / 2**stages, dims[-1]]"""
    x = image
    for i, dim in enumerate(self.dims):
      batch, height, width, channels = x.shape
      x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).swapaxes(2, 3)
      x = x.reshape(batch, height // 2, width // 2, 4 * channels)
      x = Conv(dim, (3, 3), dtype=self.dtype, name=f"conv_{i}")(x)
      x = nn.gelu(x)
    return x


class ClassToken(nn.Module):
  """Class token: prepends one trained vector to a sequence."""

  dtype: Any = None
  token_init: Callable = initial.zeros

  @nn.compact
  def __call__(self, x):
    """[batch, length, dim] -> [batch, 1 + length, dim]"""
    token = self.param("embedding", self.token_init, (1, x.shape[-1]))
    return jnp.concatenate([mixed_precision.broadcast(token, (x.shape[0], 1, x.shape[-1]), x.dtype), x], axis=1)
