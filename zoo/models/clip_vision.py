"""CLIP's image tower alone: the eyes of many models that talk about images. https://arxiv.org/abs/2103.00020"""

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import sizes
from zoo.models.clip import PAPER as PAPER
from zoo.models.clip_towers import image_tower
from zoo.models.model import Model


class CLIPVision(Model):
  """See `zoo.models.clip.ImageTower`."""

  image: nn.Module
  image_size: int
  channels: int = 3

  def __call__(self, image, *, train=False):
    """Hidden states, the normed class token, and its projection.

    Args:
      image: float [batch, image_size, image_size, channels]

    Returns:
      dict of "hidden" [batch, 1 + patches, dim] (not normed), "pooled" [batch, dim] and, with embed_dim, "embedded"
      [batch, embed_dim] (not of unit length)
    """
    sizes.image_fits(image, self.image_size, self.channels)
    return self.image(image, train=train)

  @nn.nowrap
  def example(self, batch_size=1):
    return (jnp.zeros((batch_size, self.image_size, self.image_size, self.channels)),)


def clip_vision(
  *,
  image_size: int,
  patch_size: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int | None = None,
  embed_dim: int | None = None,
  activation: str = "quick_gelu",
  epsilon: float = 1e-5,
  channels: int = 3,
  dropout: float = 0.0,
  drop_path: float = 0.0,
  dtype: str | None = None,
  scan: bool | None = None,
  remat: str | None = None,
) -> CLIPVision:
  """An image tower of these sizes; no projection if embed_dim is None; the rest as `zoo.models.clip.clip` has it."""
  sizes.positive(embed_dim=embed_dim)
  tower = image_tower(
    image_size=image_size,
    patch_size=patch_size,
    channels=channels,
    dim=dim,
    depth=depth,
    num_heads=num_heads,
    mlp_dim=mlp_dim,
    embed_dim=embed_dim,
    activation=activation,
    epsilon=epsilon,
    dropout=dropout,
    drop_path=drop_path,
    dtype=dtype,
    scan=scan,
    remat=remat,
  )
  return CLIPVision(image=tower, image_size=image_size, channels=channels)


_BASE = dict(image_size=224, dim=768, depth=12, num_heads=12, embed_dim=512)
VARIANTS = {
  "ViT-B/32": dict(patch_size=32, **_BASE),
  "ViT-B/16": dict(patch_size=16, **_BASE),
  "ViT-L/14": dict(image_size=224, patch_size=14, dim=1024, depth=24, num_heads=16, embed_dim=768),
}
# How many each has: what `list_models` prints.
PARAMETERS = {
  "ViT-B/32": 87_849_216,
  "ViT-B/16": 86_192_640,
  "ViT-L/14": 303_966_208,
}
