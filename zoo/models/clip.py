"""CLIP: Learning Transferable Visual Models From Natural Language Supervision (Radford et al., 2021).

https://arxiv.org/abs/2103.00020. Code: https://github.com/openai/CLIP. With `logit_bias` the model of the sigmoid loss,
https://arxiv.org/abs/2303.15343.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, sizes
from zoo.models.clip_towers import image_tower, text_tower
from zoo.models.model import Model

PAPER = {
  "title": "Learning Transferable Visual Models From Natural Language Supervision",
  "authors": "Radford et al.",
  "year": 2021,
  "url": "https://arxiv.org/abs/2103.00020",
}


class CLIP(Model):
  """Two towers into one space of unit vectors, and the scale at which their products are compared."""

  image: nn.Module
  text: nn.Module
  image_size: int
  channels: int = 3
  # The paper's initial temperature 0.07. Keeping the scale below 100 is the trainer's job.
  logit_scale: float = math.log(1 / 0.07)
  logit_bias: float | None = None

  def setup(self):
    self.scale = self.param("logit_scale", initial.constant(self.logit_scale), ())
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
    return _unit(self.image(image, train=train)["embedded"])

  def encode_text(self, tokens, *, valid=None, train=False):
    """int32 [batch, length] -> unit vectors [batch, embed_dim]"""
    sizes.tokens_fit(tokens)
    return _unit(self.text(tokens, valid=valid, train=train)["embedded"])

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
  read_at: str = "end",
  image_mlp_dim: int | None = None,
  text_mlp_dim: int | None = None,
  activation: str = "quick_gelu",
  epsilon: float = 1e-5,
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

  eos: the end-of-text token; the last of the vocabulary if None.
  read_at: where a text is read: "end" (at the first eos, else at the last valid token), or as others do it: "eos" (at
    the first, else at the first token) or "largest" (at the token of the largest number).
  image_mlp_dim, text_mlp_dim: 4 * image_dim, 4 * text_dim if None.
  epsilon: of the norms.
  logit_bias: initial value of the sigmoid loss's bias.
  stem_dims: widths of convolutions before the patches, each halving the resolution, for few and small images.
  """
  sizes.positive(embed_dim=embed_dim)
  common = dict(
    embed_dim=embed_dim,
    activation=activation,
    epsilon=epsilon,
    dropout=dropout,
    drop_path=drop_path,
    dtype=dtype,
    scan=scan,
    remat=remat,
  )
  return CLIP(
    image=image_tower(
      image_size=image_size,
      patch_size=patch_size,
      channels=channels,
      stem_dims=stem_dims,
      dim=image_dim,
      depth=image_depth,
      num_heads=image_heads,
      mlp_dim=image_mlp_dim,
      which="image_",
      **common,
    ),
    text=text_tower(
      vocab_size=vocab_size,
      max_length=max_length,
      eos=eos,
      read_at=read_at,
      dim=text_dim,
      depth=text_depth,
      num_heads=text_heads,
      mlp_dim=text_mlp_dim,
      which="text_",
      **common,
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
# How many each has: what `list_models` prints.
PARAMETERS = {
  "ViT-B/32": 151_277_313,
  "ViT-B/16": 149_620_737,
  "ViT-L/14": 427_616_513,
}
