"""SigLIP 2: Multilingual Vision-Language Encoders (Tschannen et al., 2025), NaFlex: images of any shape.

https://arxiv.org/abs/2502.14786. Code: https://github.com/google-research/big_vision. SigLIP 2 of one resolution is a
`siglip`.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, sizes
from zoo.layers.dense import Dense
from zoo.layers.kernel_products import dot
from zoo.layers.mixed_precision import add
from zoo.layers.sequence import SequenceInfo
from zoo.models.clip import CLIP
from zoo.models.siglip import ImageClassifier, siglip

PAPER = {
  "title": "SigLIP 2: Multilingual Vision-Language Encoders with Improved Semantic Understanding, Localization, and "
  "Dense Features",
  "authors": "Tschannen et al.",
  "year": 2025,
  "url": "https://arxiv.org/abs/2502.14786",
}


def spread(size, wanted, place):
  """How much each of `size` numbers in a row counts for what is at `place` when they are resampled to `wanted` numbers.

  As torch's bilinear `interpolate` with antialias: a triangle that is as wide as a number on either side, old or new,
  whichever is wider, and ends where the old numbers end.

  Args:
    size: an int.
    wanted: int32 [batch, 1]
    place: int32 [batch, n], below wanted.

  Returns:
    float32 [batch, n, size], each row of sum 1
  """
  step = size / wanted.astype(jnp.float32)
  center = (place + 0.5) * step
  distance = abs(jnp.arange(size)[None, None] + 0.5 - center[:, :, None]) / jnp.maximum(step, 1.0)[:, :, None]
  weight = jnp.maximum(1 - distance, 0)
  return weight / weight.sum(-1, keepdims=True)


class FlexiblePositions(nn.Module):
  """A trained vector per place of a square grid, resampled for each image's own grid."""

  side: int
  dim: int
  dtype: Any = None
  embedding_init: nn.initializers.Initializer = initial.normal(0.02)

  @nn.compact
  def __call__(self, count, grid):
    """int32 [batch, 2], rows and columns of each image -> [batch, count, dim], row by row; padding is as the first."""
    table = self.param("embedding", self.embedding_init, (self.side**2, self.dim))
    grid = jnp.maximum(grid, 1)
    rows, columns = grid[:, :1], grid[:, 1:]
    place = jnp.arange(count)[None]
    place = jnp.where(place < rows * columns, place, 0)
    down, across = spread(self.side, rows, place // columns), spread(self.side, columns, place % columns)
    weight = (down[:, :, :, None] * across[:, :, None, :]).reshape(*place.shape, -1)
    weight = weight if self.dtype is None else weight.astype(self.dtype)
    return dot(weight, table, precision="highest")


class FlexTower(nn.Module):
  """A ViT without a class token over patches of images of any shape."""

  patches: nn.Module
  positions: nn.Module
  stack: nn.Module
  norm: nn.Module
  pool: nn.Module | None
  dropout: float = 0.0

  @nn.compact
  def __call__(self, image, *, train=False):
    """Image, as of SigLIP2 -> dict of "hidden" [batch, n, dim] (normed) and, by the pool, "embedded" [batch, dim]"""
    x, valid = self.patches(image["patches"]), image["valid"].astype(bool)
    x = add(x, self.positions(x.shape[1], image["grid"]))
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    x = self.norm(self.stack(x, info=SequenceInfo(valid), train=train))
    return {"hidden": x} if self.pool is None else {"hidden": x, "embedded": self.pool(x, valid=valid, train=train)}


def flexible(plain, side, dim, dtype):
  """The tower whose stack and pool an `ImageTower` has, with positions of a grid of side * side."""
  dtype = sizes.compute_dtype(dtype)
  return FlexTower(
    patches=Dense(dim, dtype=dtype, kernel_init=initial.lecun_normal()),
    positions=FlexiblePositions(side, dim, dtype=dtype, embedding_init=initial.normal(dim**-0.5)),
    **{name: getattr(plain, name) for name in ("stack", "norm", "pool", "dropout")},
  )


def patches_fit(image, patch_size, channels):
  """Refuses what is no dict of patches, or patches of another size."""
  pixels = patch_size**2 * channels
  kinds = {"patches": ("batch", "n", pixels), "valid": ("batch", "n"), "grid": ("batch", 2)}
  if not isinstance(image, dict) or set(image) != set(kinds):
    has = sorted(image) if isinstance(image, dict) else f"an array {list(jnp.shape(image))}"
    raise ValueError(
      f"image is {has}, the model wants a dict of {', '.join(kinds)}: zoo.load_processor(FOLDER) of a published model "
      "makes them."
    )
  batch, n = (*image["patches"].shape, 0, 0)[:2]
  for name, wanted in kinds.items():
    if image[name].shape != tuple({"batch": batch, "n": n}.get(size, size) for size in wanted):
      raise ValueError(f"{name} of an image have shape {list(image[name].shape)}, the model wants {list(wanted)}.")


def example_image(batch_size, image_size, patch_size, channels):
  """Images of zeros, of a grid one row lower than it may be."""
  side = image_size // patch_size
  patches = jnp.zeros((batch_size, side**2, patch_size**2 * channels))
  valid = jnp.broadcast_to(jnp.arange(side**2)[None] < max(side - 1, 1) * side, (batch_size, side**2))
  return {"patches": patches, "valid": valid, "grid": jnp.array([[max(side - 1, 1), side]] * batch_size, jnp.int32)}


class SigLIP2(CLIP, kw_only=True):
  """A SigLIP that is given an image as patches of `patch_size` pixels a side:

    patches: float [batch, n, patch_size * patch_size * channels], row by row; pixels of a patch too, channels last
    valid: bool [batch, n], True = a real patch, False = padding behind them
    grid: int32 [batch, 2]: rows and columns of the real ones

  `image_size` is that of a square image whose patches have a position each; for others positions are resampled.
  """

  patch_size: int
  image_shape = None

  def encode_image(self, image, *, train=False):
    """An image as above -> unit vectors float32 [batch, embed_dim]"""
    patches_fit(image, self.patch_size, self.channels)
    x = self.image(image, train=train)["embedded"].astype(jnp.float32)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

  @nn.nowrap
  def example(self, batch_size=1):
    return example_image(batch_size, self.image_size, self.patch_size, self.channels), super().example(batch_size)[1]


class FlexClassifier(ImageClassifier, kw_only=True):
  """The image tower alone, with classes."""

  patch_size: int
  image_shape = None

  def __call__(self, image, *, train=False):
    """An image as of SigLIP2 -> as of `ImageClassifier`; logits are of the mean of the real patches' states."""
    patches_fit(image, self.patch_size, self.channels)
    found = self.image(image, train=train)
    weight = image["valid"].astype(found["hidden"].dtype)[:, :, None]
    mean = (found["hidden"] * weight).sum(axis=1) / weight.sum(axis=1)
    out = {"hidden": found["hidden"], "logits": self.head(mean).astype(jnp.float32)}
    return {**out, "pooled": found["embedded"]} if "embedded" in found else out

  @nn.nowrap
  def example(self, batch_size=1):
    return (example_image(batch_size, self.image_size, self.patch_size, self.channels),)


def siglip2(
  *,
  image_size: int,
  patch_size: int,
  image_dim: int,
  image_depth: int,
  image_heads: int,
  text_dim: int | None = None,
  text_depth: int | None = None,
  text_heads: int | None = None,
  vocab_size: int | None = None,
  max_length: int | None = None,
  head: str | None = None,
  num_classes: int | None = None,
  image_mlp_dim: int | None = None,
  text_mlp_dim: int | None = None,
  pool: bool = True,
  activation: str = "gelu_tanh",
  epsilon: float = 1e-6,
  channels: int = 3,
  dropout: float = 0.0,
  drop_path: float = 0.0,
  dtype: str | None = None,
  scan: bool | None = None,
  remat: str | None = None,
) -> SigLIP2 | FlexClassifier:
  """A SigLIP 2 for images of any shape; arguments as of `zoo.models.siglip`.

  image_size: of a square image whose patches have a position each; a multiple of patch_size.
  """
  given: dict[str, Any] = dict(locals())
  side = sizes.patch_grid(image_size, patch_size)
  plain = siglip(**given)
  image = flexible(plain.image, side, image_dim, dtype)
  shared: dict[str, Any] = dict(image=image, image_size=image_size, patch_size=patch_size, channels=channels)
  if isinstance(plain, ImageClassifier):
    return FlexClassifier(head=plain.head, **shared)
  return SigLIP2(text=plain.text, logit_scale=plain.logit_scale, logit_bias=plain.logit_bias, **shared)


# Table 1 of the paper; positions of the releases are those of 16 x 16 patches.
_BOTH = dict(image_size=256, patch_size=16, vocab_size=256000, max_length=64)
VARIANTS = {
  "B/16-naflex": dict(
    **dict(image_dim=768, image_depth=12, image_heads=12, text_dim=768, text_depth=12, text_heads=12), **_BOTH
  ),
  "So400m/16-naflex": dict(
    **dict(image_dim=1152, image_depth=27, image_heads=16, image_mlp_dim=4304),
    **dict(text_dim=1152, text_depth=27, text_heads=16, text_mlp_dim=4304),
    **_BOTH,
  ),
}
# How many each has: what `list_models` prints.
PARAMETERS = {
  "B/16-naflex": 375_234_050,
  "So400m/16-naflex": 1_135_670_962,
}
