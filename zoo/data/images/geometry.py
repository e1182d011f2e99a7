"""Geometric augmentations of images, float32 [batch, height, width, channels] in [-1, 1], drawn per image."""

import jax
import jax.numpy as jnp

from zoo.errors import UserError

FILLS = {"edge": None, "white": 1.0, "black": -1.0, "grey": 0.0}


def shift(rng: jax.Array, image: jax.Array, *, pixels: int = 4, fill: str = "edge") -> jax.Array:
  """Random translation by up to `pixels` in each direction: [batch, height, width, channels] -> the same shape.

  New pixels repeat the edge or have the colour `fill`: "edge", "white", "black" or "grey".
  """
  value = fill_value(fill)
  batch, *size = image.shape
  border = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
  padded = jnp.pad(image, border, "edge") if value is None else jnp.pad(image, border, constant_values=value)
  starts = jax.random.randint(rng, (batch, 2), 0, 2 * pixels + 1)
  return jax.vmap(lambda single, start: jax.lax.dynamic_slice(single, (start[0], start[1], 0), size))(padded, starts)


def flip(rng: jax.Array, image: jax.Array) -> jax.Array:
  """Horizontal flip, by default of half of the images: [batch, height, width, channels] -> the same shape.

  >>> flip(jax.random.key(0), jnp.arange(3.0).reshape(1, 1, 3, 1)).ravel().tolist()
  [2.0, 1.0, 0.0]
  """
  return image[:, :, ::-1]


def random_resized_crop(
  rng: jax.Array, image: jax.Array, *, scale: tuple = (0.3, 1.0), ratio: tuple = (0.75, 4 / 3)
) -> jax.Array:
  """Random crop with area `scale` and aspect ratio `ratio`, resized to full size (https://arxiv.org/abs/1409.4842).

  [batch, height, width, channels] -> the same shape. Linear interpolation in height, then width, as two matrix
  products, which is fast on all devices.

  Args:
    rng: random key.
    image: float32 in [-1, 1].
    scale: smallest and largest area of the crop, as fractions of the image.
    ratio: smallest and largest width / height of the crop.
  """
  batch, height, width, _ = image.shape
  area_rng, ratio_rng, place_rng = jax.random.split(rng, 3)
  area = jax.random.uniform(area_rng, (batch,), minval=scale[0], maxval=scale[1])
  aspect = jnp.exp(jax.random.uniform(ratio_rng, (batch,), minval=jnp.log(ratio[0]), maxval=jnp.log(ratio[1])))
  parts = jnp.minimum(1.0, jnp.sqrt(jnp.stack([area / aspect, area * aspect])))  # [2, batch]: of height, of width
  starts = jax.random.uniform(place_rng, (2, batch)) * (1 - parts)
  rows = _interpolation(starts[0] * height, parts[0], height)
  columns = _interpolation(starts[1] * width, parts[1], width)
  exact = jax.lax.Precision.HIGHEST
  image = jnp.einsum("bhi,biwc->bhwc", rows, image, precision=exact)
  return jnp.einsum("bwj,bhjc->bhwc", columns, image, precision=exact)


def rotate(rng: jax.Array, image: jax.Array, *, degrees: float = 15.0, fill: str = "edge") -> jax.Array:
  """Random rotation by up to `degrees` about the centre: [batch, height, width, channels] -> the same shape.

  Linear interpolation, by a gather, which is slow on TPUs. New pixels as in `shift`.
  """
  value = fill_value(fill)
  batch, height, width, _ = image.shape
  angle = jnp.deg2rad(jax.random.uniform(rng, (batch,), minval=-degrees, maxval=degrees))
  y, x = jnp.meshgrid(jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij")
  mode, constant = ("nearest", 0.0) if value is None else ("constant", value)

  def turn(single: jax.Array, angle: jax.Array) -> jax.Array:
    from_y = jnp.cos(angle) * y + jnp.sin(angle) * x + (height - 1) / 2
    from_x = jnp.cos(angle) * x - jnp.sin(angle) * y + (width - 1) / 2
    look = lambda channel: jax.scipy.ndimage.map_coordinates(channel, [from_y, from_x], 1, mode, constant)
    return jax.vmap(look, in_axes=-1, out_axes=-1)(single)

  return jax.vmap(turn)(image, angle)


def cutout(rng: jax.Array, image: jax.Array, *, pixels: int = 8, fill: str = "grey") -> jax.Array:
  """Cutout (https://arxiv.org/abs/1708.04552): fills a square of `pixels` whose centre is anywhere in the image.

  [batch, height, width, channels] -> the same shape. UserError if `fill` is not "white", "black" or "grey".
  """
  value = fill_value(fill)
  if value is None:
    raise UserError("cutout.fill is 'edge'. It may be: white, black, grey.")
  batch, height, width, _ = image.shape
  middle = jax.random.uniform(rng, (2, batch, 1))
  rows = jnp.abs(jnp.arange(height)[None] + 0.5 - height * middle[0]) < pixels / 2  # [batch, height]
  columns = jnp.abs(jnp.arange(width)[None] + 0.5 - width * middle[1]) < pixels / 2
  return jnp.where((rows[:, :, None] & columns[:, None, :])[..., None], value, image)


def fill_value(fill: str) -> float | None:
  """Pixel value of a colour's name; None: the image's edge."""
  if fill not in FILLS:
    raise UserError(f"fill is '{fill}'. It may be: {', '.join(FILLS)}.")
  return FILLS[fill]


def _interpolation(start: jax.Array, part: jax.Array, size: int) -> jax.Array:
  """Interpolation matrices [batch, size, size]: row i has the weights of pixels around `start + part * (i + 1/2)`."""
  pixels = jnp.arange(size)
  middles = jnp.clip(start[:, None] + part[:, None] * (pixels[None] + 0.5) - 0.5, 0, size - 1)
  return jnp.maximum(0.0, 1 - jnp.abs(middles[:, :, None] - pixels[None, None]))
