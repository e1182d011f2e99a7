"""SigLIP's image tower alone: the eyes of many models that talk about images. https://arxiv.org/abs/2303.15343"""

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import sizes
from zoo.models.model import Model
from zoo.models.siglip import PAPER as PAPER
from zoo.models.siglip import PAPERS as PAPERS
from zoo.models.siglip_towers import image_tower


class SigLIPVision(Model):
  """See `zoo.models.siglip_towers.ImageTower`."""

  image: nn.Module
  image_size: int
  channels: int = 3

  def __call__(self, image, *, train=False):
    """Hidden states, and what the pool makes of them.

    Args:
      image: float [batch, image_size, image_size, channels]

    Returns:
      dict of "hidden" [batch, patches, dim] (normed) and, by the pool, "pooled" [batch, dim] (not of unit length)
    """
    sizes.image_fits(image, self.image_size, self.channels)
    return renamed(self.image(image, train=train))

  @nn.nowrap
  def example(self, batch_size=1):
    return (jnp.zeros((batch_size, self.image_size, self.image_size, self.channels)),)


def renamed(found):
  """What a tower returns, by the names of an encoder of images: what a pair embeds is what is pooled."""
  return {{"embedded": "pooled"}.get(name, name): array for name, array in found.items()}


def siglip_vision(
  *,
  image_size: int,
  patch_size: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int | None = None,
  pool: bool = True,
  activation: str = "gelu_tanh",
  epsilon: float = 1e-6,
  channels: int = 3,
  dropout: float = 0.0,
  drop_path: float = 0.0,
  dtype: str | None = None,
  scan: bool | None = None,
  remat: str | None = None,
) -> SigLIPVision:
  """An image tower of these sizes, with the pool or without; the rest as `zoo.models.siglip.siglip` has it."""
  tower = image_tower(
    image_size=image_size,
    patch_size=patch_size,
    channels=channels,
    dim=dim,
    depth=depth,
    num_heads=num_heads,
    mlp_dim=mlp_dim,
    pool=pool,
    activation=activation,
    epsilon=epsilon,
    dropout=dropout,
    drop_path=drop_path,
    dtype=dtype,
    scan=scan,
    remat=remat,
  )
  return SigLIPVision(image=tower, image_size=image_size, channels=channels)


# The towers of zoo/models/siglip.py's.
_BASE = dict(image_size=224, patch_size=16, dim=768, depth=12, num_heads=12)
_LARGE = dict(image_size=256, patch_size=16, dim=1024, depth=24, num_heads=16)
_SO400M = dict(patch_size=14, dim=1152, depth=27, num_heads=16, mlp_dim=4304)
VARIANTS = {
  "B/16": _BASE,
  "L/16": _LARGE,
  "So400m/14": dict(image_size=384, **_SO400M),
  "2-B/16": _BASE,
  "2-L/16": _LARGE,
  "2-So400m/14": dict(image_size=224, **_SO400M),
}
# How many each has: what `list_models` prints.
PARAMETERS = {
  "B/16": 92_884_224,
  "L/16": 315_956_224,
  "So400m/14": 428_225_600,
  "2-B/16": 92_884_224,
  "2-L/16": 315_956_224,
  "2-So400m/14": 427_680_704,
}
