"""CLIP's image tower alone, the vision encoder of many vision-language models. https://arxiv.org/abs/2103.00020"""

from typing import Any, Unpack

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, norms, sizes
from zoo.layers.compute import resolve
from zoo.layers.embeddings import ClassToken, ConvStem, PatchEmbed
from zoo.layers.mixed_precision import add
from zoo.layers.positions import Learned
from zoo.models.clip_text import PAPER as PAPER
from zoo.models.clip_text import TowerOptions, layers, projected
from zoo.models.model import Model


class ImageTower(nn.Module, kw_only=True):
  """Base class of image towers; this one takes square images of one size.

  A call takes images and returns a dict of "hidden" [batch, length, dim], "pooled" [batch, dim] (absent in a tower
  without pooling) and, where the tower has a projection, "embedded" [batch, embed_dim].
  """

  image_size: int
  channels: int = 3

  @property
  def image_shape(self):
    """(height, width, channels) that every image must have; None: they may differ."""
    return self.image_size, self.image_size, self.channels

  @nn.nowrap
  def check(self, image):
    """ValueError for images that the tower does not take."""
    sizes.image_fits(image, self.image_size, self.channels)

  @nn.nowrap
  def example(self, batch_size):
    """Images of zeros in a shape and dtype that the tower takes."""
    return jnp.zeros((batch_size, self.image_size, self.image_size, self.channels))

  @nn.nowrap
  def mean(self, hidden, image):
    """Mean over the hidden states of an image: [batch, length, dim] -> [batch, dim]"""
    return hidden.mean(axis=1)


class CLIPImageTower(ImageTower):
  """A ViT with a norm before its stack; the class token is normed and, where there is a projection, projected."""

  stem: nn.Module | None
  patches: nn.Module
  class_token: nn.Module
  positions: nn.Module
  pre_norm: nn.Module
  stack: nn.Module
  norm: nn.Module
  projection: nn.Module | None
  dropout: float = 0.0

  @nn.compact
  def __call__(self, image, *, train=False):
    """[batch, image_size, image_size, channels] -> as `ImageTower`; "hidden" [batch, 1 + patches, dim] is not normed"""
    x = image if self.stem is None else self.stem(image)
    x = self.class_token(self.patches(x))
    x = nn.Dropout(self.dropout)(self.pre_norm(add(x, self.positions(x.shape[1]))), deterministic=not train)
    x = self.stack(x, train=train)
    return projected({"hidden": x, "pooled": self.norm(x[:, 0])}, self.projection)

  @nn.nowrap
  def mean(self, hidden, image):
    """As `ImageTower.mean`, without the class token."""
    return hidden[:, 1:].mean(axis=1)


class ImageEncoder(Model):
  """Image tower as a model of its own."""

  image: nn.Module

  def __call__(self, image, *, train=False):
    """Hidden states, the pooled state, and its projection.

    Args:
      image: float [batch, image_size, image_size, channels], or what else the tower takes.

    Returns:
      dict of "hidden" [batch, length, dim] (of CLIP not normed, the class token first; of SigLIP normed patches),
      "pooled" [batch, dim] (of CLIP the normed class token; of SigLIP the output of its pool, if it has one) and, with
      embed_dim, "embedded" [batch, embed_dim]. None of them is of unit length.
    """
    self.image.check(image)
    return self.image(image, train=train)

  @property
  def image_size(self):
    return self.image.image_size

  @property
  def image_shape(self):
    return self.image.image_shape

  @nn.nowrap
  def example(self, batch_size=1):
    return (self.image.example(batch_size),)


class ImageClassifier(ImageEncoder):
  """Image tower with a classifier."""

  head: nn.Module

  def __call__(self, image, *, train=False):
    """The outputs of `ImageEncoder`, and "logits" float32 [batch, num_classes] from the mean of its patches."""
    out = super().__call__(image, train=train)
    return {**out, "logits": self.head(self.image.mean(out["hidden"], image)).astype(jnp.float32)}


def clip_vision(
  *,
  image_size: int,
  patch_size: int,
  dim: int,
  depth: int,
  num_heads: int,
  channels: int = 3,
  **options: Unpack[TowerOptions],
) -> ImageEncoder:
  """An image tower of these sizes; `options` as of `clip_text.TowerSizes` and `zoo.layers.compute.Compute`."""
  sizes.positive(embed_dim=options.get("embed_dim"))
  image: dict[str, Any] = dict(image_size=image_size, patch_size=patch_size, channels=channels, **options)
  return ImageEncoder(image=tower(dim=dim, depth=depth, num_heads=num_heads, **image))


def tower(
  *, image_size, patch_size, channels, stem_dims=(), dim, depth, num_heads, which="", **options: Unpack[TowerOptions]
) -> CLIPImageTower:
  """The image tower of these sizes. which: prefix of names in messages."""
  grid = sizes.patch_grid(image_size, patch_size)
  sizes.positive(channels=channels, dim=dim)
  stem_dims, shrunk = tuple(stem_dims), 2 ** len(stem_dims)
  sizes.positive(**{f"stem_dims[{i}]": dim for i, dim in enumerate(stem_dims)})
  if patch_size % shrunk:
    raise ValueError(
      f"patch_size {patch_size} is not a multiple of {shrunk}, the stride of {len(stem_dims)} stem_dims. Change one "
      "of them."
    )
  common = resolve(TowerOptions, options)
  width = initial.normal(dim**-0.5)
  # torch's default for a convolution: uniform in +-1/sqrt(fan_in).
  patch_init = initial.variance_scaling(1 / 3, "fan_in", "uniform")
  return CLIPImageTower(
    stem=ConvStem(stem_dims, dtype=common.dtype) if stem_dims else None,
    patches=PatchEmbed(patch_size // shrunk, dim, use_bias=False, dtype=common.dtype, kernel_init=patch_init),
    class_token=ClassToken(token_init=width),
    positions=Learned(grid**2 + 1, dim, embedding_init=width),
    pre_norm=norms.layer_norm(common.epsilon, common.dtype),
    image_size=image_size,
    channels=channels,
    **layers(dim, depth, num_heads, which=which, **options),
  )


_BASE = dict(image_size=224, dim=768, depth=12, num_heads=12, embed_dim=512)
VARIANTS = {
  "ViT-B/32": dict(patch_size=32, **_BASE),
  "ViT-B/16": dict(patch_size=16, **_BASE),
  "ViT-L/14": dict(image_size=224, patch_size=14, dim=1024, depth=24, num_heads=16, embed_dim=768),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "ViT-B/32": 87_849_216,
  "ViT-B/16": 86_192_640,
  "ViT-L/14": 303_966_208,
}
