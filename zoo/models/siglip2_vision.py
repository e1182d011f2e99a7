"""The image tower alone of SigLIP 2 for images of any shape. https://arxiv.org/abs/2502.14786

That of one resolution is a `siglip_vision`, and the text tower a `siglip_text`.
"""

from typing import Any

import flax.linen as nn

from zoo.layers import sizes
from zoo.models.siglip2 import PAPER as PAPER
from zoo.models.siglip2 import example_image, flexible, patches_fit
from zoo.models.siglip_vision import SigLIPVision, renamed, siglip_vision


class SigLIP2Vision(SigLIPVision, kw_only=True):
  """See `zoo.models.siglip2.FlexTower`."""

  patch_size: int
  image_shape = None

  def __call__(self, image, *, train=False):
    """An image as of `zoo.models.siglip2.SigLIP2` -> as of `SigLIPVision`; states of padding are of no use."""
    patches_fit(image, self.patch_size, self.channels)
    return renamed(self.image(image, train=train))

  @nn.nowrap
  def example(self, batch_size=1):
    return (example_image(batch_size, self.image_size, self.patch_size, self.channels),)


def siglip2_vision(
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
) -> SigLIP2Vision:
  """An image tower for images of any shape; arguments as of `zoo.models.siglip_vision`.

  image_size: of a square image whose patches have a position each; a multiple of patch_size.
  """
  given: dict[str, Any] = dict(locals())
  side = sizes.patch_grid(image_size, patch_size)
  image = flexible(siglip_vision(**given).image, side, dim, dtype)
  return SigLIP2Vision(image=image, image_size=image_size, patch_size=patch_size, channels=channels)


# The towers of zoo/models/siglip2.py's.
VARIANTS = {
  "B/16-naflex": dict(image_size=256, patch_size=16, dim=768, depth=12, num_heads=12),
  "So400m/16-naflex": dict(image_size=256, patch_size=16, dim=1152, depth=27, num_heads=16, mlp_dim=4304),
}
# How many each has: what `list_models` prints.
PARAMETERS = {
  "B/16-naflex": 92_930_304,
  "So400m/16-naflex": 427_888_064,
}
