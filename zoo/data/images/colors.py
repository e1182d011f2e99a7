"""Colour augmentations of images, float32 [batch, height, width, 3] in [-1, 1], drawn per image."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
YIQ = np.array([LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)], np.float32)  # luma and two chroma axes


def color(
  rng: jax.Array,
  image: jax.Array,
  *,
  brightness: float = 0.2,
  contrast: float = 0.2,
  saturation: float = 0.2,
  hue: float = 0.05,
  mix: float = 0.0,
) -> jax.Array:
  """Colour jitter: brightness, contrast, saturation, hue and channel mixing as one matrix [3, 3] per image.

  Args:
    rng: random key.
    image: [batch, height, width, 3].
    brightness, contrast, saturation: factors are drawn from 1 - value to 1 + value.
    hue: rotates the hue by up to this fraction of a full turn either way.
    mix: standard deviation of noise on the entries of the 3 x 3 matrix; greys stay grey.
  """
  batch = len(image)
  rngs = jax.random.split(rng, 5)
  bright, contrasted, saturated = (
    jax.random.uniform(rngs[i], (batch,), minval=1 - value, maxval=1 + value)
    for i, value in enumerate((brightness, contrast, saturation))
  )
  angle = 2 * jnp.pi * jax.random.uniform(rngs[3], (batch,), minval=-hue, maxval=hue)
  cos, sin, zero = saturated * jnp.cos(angle), saturated * jnp.sin(angle), jnp.zeros(batch)
  rotation = jnp.stack([jnp.ones(batch), zero, zero, zero, cos, -sin, zero, sin, cos], axis=-1).reshape(batch, 3, 3)
  matrix = jnp.einsum("oi,bij,jk->bok", np.linalg.inv(YIQ), rotation, YIQ)  # Rows sum to 1: greys stay grey.
  noise = mix * jax.random.normal(rngs[4], (batch, 3, 3))
  matrix = matrix + noise - noise.mean(-1, keepdims=True)
  matrix = (bright * contrasted)[:, None, None] * matrix
  planes = [
    image[..., channel] for channel in range(3)
  ]  # Plane by plane: ten times as fast as a matmul over 3 channels.
  mean = sum(weight * plane.mean((1, 2)) for weight, plane in zip(LUMA, planes))
  # Contrast pulls toward the mean luminance, brightness toward black, which is -1.
  offset = bright * (1 - contrasted) * mean + bright - 1
  planes = [
    image[..., channel] for channel in range(3)
  ]  # Plane by plane: ten times as fast as a matmul over 3 channels.
  mixed = [
    sum(matrix[:, out, channel, None, None] * planes[channel] for channel in range(3)) + offset[:, None, None]
    for out in range(3)
  ]
  return jnp.clip(jnp.stack(mixed, axis=-1), -1, 1)


def grayscale(rng: jax.Array, image: jax.Array) -> jax.Array:
  """Converts to grayscale, by default a tenth of the images: float32 [batch, height, width, 3] -> the same."""
  return jnp.broadcast_to(luminance(image)[..., None], image.shape)


def invert(rng: jax.Array, image: jax.Array) -> jax.Array:
  """Inverts colours, by default of a tenth of the images: float32 [batch, height, width, channels] -> the same.

  >>> invert(jax.random.key(0), jnp.full((1, 1, 1, 3), 0.5)).tolist()
  [[[[-0.5, -0.5, -0.5]]]]
  """
  return -image


def outline_darken(rng: jax.Array, image: jax.Array, *, amount: float = 1.0, width: int = 1) -> jax.Array:
  """Draws dark outlines where luminance changes, so that flat drawings look outlined.

  Args:
    rng: random key.
    image: [batch, height, width, 3].
    amount: maximum darkness of the outlines, drawn per image from 0 to this; 1 = black along edges of full contrast.
    width: width of the outline in pixels on each side of an edge.
  """
  light = luminance(image)
  high, low = light, light
  for axis in (1, 2):
    high, low = _over_window(high, width, axis, jnp.maximum), _over_window(low, width, axis, jnp.minimum)
  edge = jnp.clip(high - low, 0, 1)  # Half of the range from black to white counts as full contrast.
  dark = (edge * jax.random.uniform(rng, (len(image), 1, 1), maxval=amount))[..., None]
  return image * (1 - dark) - dark


def blur(rng: jax.Array, image: jax.Array, *, amount: float = 0.33) -> jax.Array:
  """Blurs float32 [batch, height, width, channels] with a 3 x 3 separable kernel.

  Args:
    rng: random key.
    image: in [-1, 1].
    amount: largest weight of a neighbour, drawn per image from 0 to this; 1/3: the mean of 3.
  """
  weight = jax.random.uniform(rng, (len(image), 1, 1, 1), maxval=amount)
  for axis in (1, 2):
    before, after = _neighbours(image, 1, axis)
    image = (1 - 2 * weight) * image + weight * (before + after)
  return image


def noise(rng: jax.Array, image: jax.Array, *, amount: float = 0.1) -> jax.Array:
  """Adds Gaussian noise of a standard deviation from 0 to `amount`: float32 [batch, height, width, channels] -> same.

  Every image gets its own window and strength of one sheet of noise: on CPUs one sheet per image costs 10 times as
    much.
  """
  batch, height, width, channels = image.shape
  sheet_rng, place_rng, amount_rng = jax.random.split(rng, 3)
  sheet = jax.random.normal(sheet_rng, (2 * height, 2 * width, channels))
  corners = jax.random.randint(place_rng, (batch, 2), 0, jnp.array([[height + 1, width + 1]]))
  size = (height, width, channels)
  windows = jax.vmap(lambda corner: jax.lax.dynamic_slice(sheet, (corner[0], corner[1], 0), size))(corners)
  strength = jax.random.uniform(amount_rng, (batch, 1, 1, 1), maxval=amount)
  return jnp.clip(image + strength * windows, -1, 1)


def luminance(image: jax.Array) -> jax.Array:
  """Luminance from -1 to 1: [batch, height, width, 3] -> [batch, height, width]."""
  return jnp.stack([weight * image[..., channel] for channel, weight in enumerate(LUMA)]).sum(0)


def _neighbours(image: jax.Array, distance: int, axis: int) -> tuple[jax.Array, jax.Array]:
  """`image` shifted by `distance` both ways along `axis`, with the edge repeated."""
  size = image.shape[axis]
  padded = jnp.pad(image, [(distance, distance) if i == axis else (0, 0) for i in range(image.ndim)], "edge")
  before, after = (jax.lax.slice_in_dim(padded, start, start + size, axis=axis) for start in (0, 2 * distance))
  return before, after


def _over_window(plane: jax.Array, width: int, axis: int, combine: Callable) -> jax.Array:
  """`combine` of each pixel with those up to `width` away along `axis`."""
  result = plane
  for distance in range(1, width + 1):
    for neighbour in _neighbours(plane, distance, axis):
      result = combine(result, neighbour)
  return result
