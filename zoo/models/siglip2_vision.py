"""SigLIP 2's NaFlex image tower alone, for images of any shape. https://arxiv.org/abs/2502.14786

At one resolution SigLIP 2's image tower is a `siglip_vision`; its text tower is a `siglip_text`.
"""

from typing import Any, Unpack

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, sizes
from zoo.layers.dense import Dense
from zoo.layers.kernel_products import dot
from zoo.layers.mixed_precision import add
from zoo.layers.sequence import SequenceInfo
from zoo.models import siglip_vision
from zoo.models.clip_vision import ImageEncoder, ImageTower
from zoo.models.siglip_vision import VisionOptions

PAPER = {
  "title": "SigLIP 2: Multilingual Vision-Language Encoders with Improved Semantic Understanding, Localization, and "
  "Dense Features",
  "authors": "Tschannen et al.",
  "year": 2025,
  "url": "https://arxiv.org/abs/2502.14786",
}


def resize_weights(size, new_size, index):
  """Resampling weights from `size` to `new_size` values, for the outputs `index`.

  As torch's bilinear `interpolate` with antialias: a triangle that extends by one sample on either side, old or new,
  whichever is wider, and is cut at the edges.

  Args:
    size: an int.
    new_size: int32 [batch, 1]
    index: int32 [batch, n], below new_size.

  Returns:
    float32 [batch, n, size], each row of sum 1
  """
  step = size / new_size.astype(jnp.float32)
  center = (index + 0.5) * step
  distance = abs(jnp.arange(size)[None, None] + 0.5 - center[:, :, None]) / jnp.maximum(step, 1.0)[:, :, None]
  weight = jnp.maximum(1 - distance, 0)
  return weight / weight.sum(-1, keepdims=True)


class FlexiblePositions(nn.Module):
  """A trained vector per position of a square grid, resampled for each image's own grid."""

  side: int
  dim: int
  dtype: Any = None
  embedding_init: nn.initializers.Initializer = initial.normal(0.02)

  @nn.compact
  def __call__(self, count, grid):
    """int32 [batch, 2], rows and columns of each image -> [batch, count, dim], row by row; padding as the first."""
    table = self.param("embedding", self.embedding_init, (self.side**2, self.dim))
    grid = jnp.maximum(grid, 1)
    rows, columns = grid[:, :1], grid[:, 1:]
    index = jnp.arange(count)[None]
    index = jnp.where(index < rows * columns, index, 0)
    down, across = (
      resize_weights(self.side, rows, index // columns),
      resize_weights(self.side, columns, index % columns),
    )
    weight = (down[:, :, :, None] * across[:, :, None, :]).reshape(*index.shape, -1)
    weight = weight if self.dtype is None else weight.astype(self.dtype)
    return dot(weight, table, precision="highest")


class FlexTower(ImageTower):
  """ViT without class token over patches of images of any shape. An image is a dict of

    patches: float [batch, n, patch_size * patch_size * channels], row by row; pixels of a patch too, channels last
    valid: bool [batch, n], True = a real patch, False = padding after them
    grid: int32 [batch, 2]: rows and columns of the real ones

  `image_size` is the square image size whose patches have one position each; for others positions are resampled.
  """

  patches: nn.Module
  positions: nn.Module
  stack: nn.Module
  norm: nn.Module
  pool: nn.Module | None
  patch_size: int
  dropout: float = 0.0

  image_shape = None

  @nn.compact
  def __call__(self, image, *, train=False):
    """An image as above -> as `ImageTower`, "pooled" only with a pool; states of padding are undefined"""
    x, valid = self.patches(image["patches"]), image["valid"].astype(bool)
    x = add(x, self.positions(x.shape[1], image["grid"]))
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    x = self.norm(self.stack(x, info=SequenceInfo(valid), train=train))
    return {"hidden": x} if self.pool is None else {"hidden": x, "pooled": self.pool(x, valid=valid, train=train)}

  @nn.nowrap
  def check(self, image):
    patches_fit(image, self.patch_size, self.channels)

  @nn.nowrap
  def example(self, batch_size):
    """Images of zeros, with a grid that leaves padding: one row lower than allowed."""
    side = self.image_size // self.patch_size
    patches = jnp.zeros((batch_size, side**2, self.patch_size**2 * self.channels))
    valid = jnp.broadcast_to(jnp.arange(side**2)[None] < max(side - 1, 1) * side, (batch_size, side**2))
    return {"patches": patches, "valid": valid, "grid": jnp.array([[max(side - 1, 1), side]] * batch_size, jnp.int32)}

  @nn.nowrap
  def mean(self, hidden, image):
    """Mean over the hidden states of real patches: [batch, n, dim] -> [batch, dim]"""
    weight = image["valid"].astype(hidden.dtype)[:, :, None]
    return (hidden * weight).sum(axis=1) / weight.sum(axis=1)


def patches_fit(image, patch_size, channels):
  """ValueError unless `image` is a dict of patches, valid and grid in the shapes that the model takes."""
  pixels = patch_size**2 * channels
  kinds = {"patches": ("batch", "n", pixels), "valid": ("batch", "n"), "grid": ("batch", 2)}
  if not isinstance(image, dict) or set(image) != set(kinds):
    actual = sorted(image) if isinstance(image, dict) else f"an array {list(jnp.shape(image))}"
    raise ValueError(
      f"image is {actual}, the model needs a dict of {', '.join(kinds)}: zoo.load_processor(FOLDER) of a published "
      "model makes them."
    )
  batch, n = (*image["patches"].shape, 0, 0)[:2]
  for name, expected in kinds.items():
    if image[name].shape != tuple({"batch": batch, "n": n}.get(size, size) for size in expected):
      raise ValueError(f"{name} of an image have shape {list(image[name].shape)}, the model needs {list(expected)}.")


def siglip2_vision(
  *, image_size: int, patch_size: int, dim: int, depth: int, num_heads: int, **options: Unpack[VisionOptions]
) -> ImageEncoder:
  """An image tower for images of any shape; arguments as of `zoo.models.siglip_vision`.

  image_size: the square image size whose patches have one position each; a multiple of patch_size.
  """
  image = tower(image_size=image_size, patch_size=patch_size, dim=dim, depth=depth, num_heads=num_heads, **options)
  return ImageEncoder(image=image)


def tower(*, image_size, patch_size, dim, **options: Any) -> FlexTower:
  """The image tower of these sizes: `zoo.models.siglip_vision.tower` with other patches and positions."""
  side = sizes.patch_grid(image_size, patch_size)
  plain = siglip_vision.tower(image_size=image_size, patch_size=patch_size, dim=dim, **options)
  dtype = sizes.compute_dtype(options.get("dtype"))
  return FlexTower(
    patches=Dense(dim, dtype=dtype, kernel_init=initial.lecun_normal()),
    positions=FlexiblePositions(side, dim, dtype=dtype, embedding_init=initial.normal(dim**-0.5)),
    patch_size=patch_size,
    **{name: getattr(plain, name) for name in ("stack", "norm", "pool", "dropout", "image_size", "channels")},
  )


# The towers of zoo/models/siglip2.py.
VARIANTS = {
  "B/16-naflex": dict(image_size=256, patch_size=16, dim=768, depth=12, num_heads=12),
  "So400m/16-naflex": dict(image_size=256, patch_size=16, dim=1152, depth=27, num_heads=16, mlp_dim=4304),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "B/16-naflex": 92_930_304,
  "So400m/16-naflex": 427_888_064,
}
