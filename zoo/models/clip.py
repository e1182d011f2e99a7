"""CLIP: Learning Transferable Visual Models From Natural Language Supervision (Radford et al., 2021).

https://arxiv.org/abs/2103.00020. Code: https://github.com/openai/CLIP. With `logit_bias` the model of the sigmoid loss,
https://arxiv.org/abs/2303.15343.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, masks, norms, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PreNormBlock
from zoo.layers.embeddings import ClassToken, ConvStem, PatchEmbed, pick
from zoo.layers.mlp import MLP
from zoo.layers.positions import Learned
from zoo.layers.stack import stack
from zoo.models.model import Model

PAPER = {
  "title": "Learning Transferable Visual Models From Natural Language Supervision",
  "authors": "Radford et al.",
  "year": 2021,
  "url": "https://arxiv.org/abs/2103.00020",
}


class ImageTower(nn.Module):
  """A ViT with a norm before its stack; the class token is projected."""

  stem: nn.Module | None
  patches: nn.Module
  class_token: nn.Module
  positions: nn.Module
  pre_norm: nn.Module
  stack: nn.Module
  norm: nn.Module
  projection: nn.Module
  dropout: float = 0.0

  @nn.compact
  def __call__(self, image, *, train=False):
    """[batch, image_size, image_size, channels] -> [batch, embed_dim]"""
    x = image if self.stem is None else self.stem(image)
    x = self.class_token(self.patches(x))
    x = nn.Dropout(self.dropout)(self.pre_norm(x + self.positions(x.shape[1])), deterministic=not train)
    x = self.stack(x, train=train)
    return self.projection(self.norm(x[:, 0]))


class TextTower(nn.Module):
  """A causal Transformer; its first end-of-text token is projected (the last valid token where there is none)."""

  embed: nn.Module
  positions: nn.Module
  stack: nn.Module
  norm: nn.Module
  projection: nn.Module
  eos: int
  dropout: float = 0.0

  @nn.compact
  def __call__(self, tokens, *, valid=None, train=False):
    """int32 [batch, length] -> [batch, embed_dim]"""
    x = self.embed(tokens) + self.positions(tokens.shape[1])
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    x = self.stack(x, valid=valid, train=train)
    is_end = tokens == self.eos
    last = tokens.shape[1] - 1 - (0 if valid is None else jnp.argmax(valid[:, ::-1], axis=1))
    end = jnp.where(is_end.any(1), is_end.argmax(1), last)
    return self.projection(self.norm(pick(x, end[:, None])[:, 0]))


class CLIP(Model):
  """Two towers into one space of unit vectors, and the scale at which their products are compared."""

  image: nn.Module
  text: nn.Module
  image_size: int
  channels: int = 3
  logit_bias: float | None = None

  def setup(self):
    # The paper's initial temperature 0.07. Keeping the scale below 100 is the trainer's job.
    self.scale = self.param("logit_scale", initial.constant(math.log(1 / 0.07)), ())
    if self.logit_bias is not None:
      self.bias = self.param("logit_bias", initial.constant(self.logit_bias), ())

  def __call__(self, image, tokens, *, valid=None, train=False):
    """Matching pairs have the largest products: logits = scale * image @ text.T [+ bias].

    Args:
      image: float [batch, image_size, image_size, channels]
      tokens: int32 [batch, length]
      valid: bool [batch, length], True = a real token; needed only where padding precedes the end-of-text token.

    Returns:
      dict of "image", "text" [batch, embed_dim] of unit length, "scale" = exp(logit_scale) and, if the model was built
      with a logit_bias, "bias": scalars. All are float32.
    """
    image, text = self.encode_image(image, train=train), self.encode_text(tokens, valid=valid, train=train)
    out = {"image": image, "text": text, "scale": jnp.exp(self.scale)}
    return out if self.logit_bias is None else {**out, "bias": self.bias}

  def encode_image(self, image, *, train=False):
    """float [batch, image_size, image_size, channels] -> unit vectors [batch, embed_dim]"""
    sizes.image_fits(image, self.image_size, self.channels)
    return _unit(self.image(image, train=train))

  def encode_text(self, tokens, *, valid=None, train=False):
    """int32 [batch, length] -> unit vectors [batch, embed_dim]"""
    sizes.tokens_fit(tokens)
    return _unit(self.text(tokens, valid=valid, train=train))

  @property
  def max_length(self):
    return self.text.positions.max_length

  @nn.nowrap
  def example(self, batch_size=1):
    image = jnp.zeros((batch_size, self.image_size, self.image_size, self.channels))
    return image, jnp.zeros((batch_size, min(self.max_length, 8)), jnp.int32)


def _unit(x):
  x = x.astype(jnp.float32)
  return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def clip(
  *,
  image_size: int,
  patch_size: int,
  image_dim: int,
  image_depth: int,
  image_heads: int,
  text_dim: int,
  text_depth: int,
  text_heads: int,
  embed_dim: int,
  vocab_size: int,
  max_length: int,
  eos: int | None = None,
  channels: int = 3,
  stem_dims: Sequence[int] = (),
  logit_bias: float | None = None,
  dropout: float = 0.0,
  drop_path: float = 0.0,
  dtype: str | None = None,
  scan: bool | None = None,
  remat: str | None = None,
) -> CLIP:
  """A CLIP of these sizes.

  eos: the end-of-text token; the last of the vocabulary if None. logit_bias: initial value of the sigmoid loss's bias.
  stem_dims: widths of convolutions before the patches, each halving the resolution, for few and small images.
  """
  grid = sizes.patch_grid(image_size, patch_size)
  sizes.positive(image_depth=image_depth, text_depth=text_depth, embed_dim=embed_dim, vocab_size=vocab_size)
  sizes.positive(max_length=max_length, channels=channels)
  sizes.rate(dropout=dropout)
  eos = vocab_size - 1 if eos is None else eos
  if not 0 <= eos < vocab_size:
    raise ValueError(f"eos is {eos}. It is a token: at least 0, below vocab_size {vocab_size}.")
  dtype = sizes.compute_dtype(dtype)
  norm = norms.layer_norm(1e-5, dtype)

  def tower(which, dim, depth, num_heads, mask):
    head_dim = sizes.head_dim(dim, num_heads, which)
    # Initial values of clip/model.py, `initialize_parameters`.
    init, residual = initial.normal(dim**-0.5), initial.normal(dim**-0.5 * (2 * depth) ** -0.5)
    attention = Attention(
      num_heads, head_dim, mask=mask, dropout=dropout, dtype=dtype, kernel_init=init, out_init=residual
    )
    up = initial.normal((2 * dim) ** -0.5)
    mlp = MLP(4 * dim, "quick_gelu", dtype=dtype, kernel_init=up, down_init=residual)
    block = PreNormBlock(attention, mlp, norm, dropout=dropout)
    return dict(
      stack=stack(block, depth, scan=scan, remat=remat, drop_path=drop_path),
      norm=norm.copy(),
      projection=nn.Dense(embed_dim, use_bias=False, dtype=dtype, kernel_init=init),
      dropout=dropout,
    )

  stem_dims, shrunk = tuple(stem_dims), 2 ** len(stem_dims)
  sizes.positive(**{f"stem_dims[{i}]": dim for i, dim in enumerate(stem_dims)})
  if patch_size % shrunk:
    raise ValueError(
      f"patch_size {patch_size} does not divide by {shrunk}, to which the {len(stem_dims)} stem_dims shrink."
    )
  width = initial.normal(image_dim**-0.5)
  # torch's default for a convolution: uniform in +-1/sqrt(fan_in).
  patch_init = initial.variance_scaling(1 / 3, "fan_in", "uniform")
  return CLIP(
    image=ImageTower(
      stem=ConvStem(stem_dims, dtype=dtype) if stem_dims else None,
      patches=PatchEmbed(patch_size // shrunk, image_dim, use_bias=False, dtype=dtype, kernel_init=patch_init),
      class_token=ClassToken(token_init=width),
      positions=Learned(grid**2 + 1, image_dim, dtype=dtype, embedding_init=width),
      pre_norm=norm.copy(),
      **tower("image_", image_dim, image_depth, image_heads, None),
    ),
    text=TextTower(
      embed=nn.Embed(vocab_size, text_dim, dtype=dtype, embedding_init=initial.normal(0.02)),
      positions=Learned(max_length, text_dim, dtype=dtype, embedding_init=initial.normal(0.01)),
      eos=eos,
      **tower("text_", text_dim, text_depth, text_heads, masks.causal),
    ),
    image_size=image_size,
    channels=channels,
    logit_bias=logit_bias,
  )


# Table 20 of the paper.
_TEXT = dict(text_depth=12, vocab_size=49408, max_length=77)
_BASE = dict(
  image_size=224, image_dim=768, image_depth=12, image_heads=12, text_dim=512, text_heads=8, embed_dim=512, **_TEXT
)
_LARGE = dict(
  image_size=224, image_dim=1024, image_depth=24, image_heads=16, text_dim=768, text_heads=12, embed_dim=768, **_TEXT
)
VARIANTS = {
  "ViT-B/32": dict(patch_size=32, **_BASE),
  "ViT-B/16": dict(patch_size=16, **_BASE),
  "ViT-L/14": dict(patch_size=14, **_LARGE),
}
