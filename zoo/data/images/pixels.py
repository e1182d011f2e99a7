"""Decodes images to arrays of one size."""

import math
from typing import Any

import numpy as np
from PIL import Image

from zoo.data.images import files, jpeg
from zoo.data.images.files import as_bad_record, opened, upright_size
from zoo.errors import UserError, did_you_mean

FITS = ("crop", "pad", "squash", "random_crop")
WHITE, BLACK = np.full(3, 255, np.uint8), np.zeros(3, np.uint8)

Box = tuple[float, float, float, float]


def check(fit: str, image_size: int | None) -> None:
  """UserError for a fit or a size that `decode` does not support."""
  if fit not in FITS:
    raise UserError(f"fit is '{fit}'.{did_you_mean(fit, FITS)} It may be: {', '.join(FITS)}.")
  if image_size is not None and image_size < 1:
    raise UserError(f"image_size is {image_size}. It must be 1 or more, or None for that of the first image.")


def decode(
  image: Any,
  size: int,
  fit: str,
  what: str,
  rng: np.random.Generator | None = None,
  scaled: bool | None = None,
) -> np.ndarray:
  """Decodes and resizes an image to uint8 [size, size, 3], or [size, size, 4] if parts of it are transparent.

  Args:
    image: the bytes of a PNG, JPEG, WebP ... file, or an array of uint8 [height, width] or [height, width, 1, 3 or 4],
      or uint16 [height, width]; for other depths, modes and orientations see `zoo.data.images.files`.
    size: pixels of each side of the result.
    fit: `crop` (shorter side to size, middle of the longer), `pad` (longer side to size, transparent margins),
      `squash`, or `random_crop` (8 to 100% of the area, aspect 3/4 to 4/3, https://arxiv.org/abs/1409.4842; without an
      rng: `crop`).
    what: names the record in messages.
    rng: numpy generator for `random_crop`.
    scaled: whether a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where the part that is used keeps `size` pixels a
      side: quicker, and off by 1 to 3 of 255 on average, as two filters are. None: in random crops alone.

  Random crops are resized by a linear filter, all else by a cubic one; both are antialiased.

  Raises:
    BadRecord: it cannot be decoded.
  """
  with as_bad_record(what):
    return _decode(image, size, fit, rng, scaled)


def natural_size(image: Any, what: str) -> int:
  """Pixels of the shorter side of an encoded image or array, without decoding it."""
  with as_bad_record(what):
    return min(upright_size(opened(image)))


def over(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
  """Composites `pixels` [h, w, 3 or 4] over a plain `colour` [3]: uint8 [h, w, 3]."""
  if pixels.shape[-1] == 3:
    return pixels
  alpha = pixels[..., 3:] / np.float32(255)
  colour = np.asarray(colour, np.float32)
  return (colour + alpha * (pixels[..., :3] - colour) + np.float32(0.5)).astype(np.uint8)


def _decode(image: Any, size: int, fit: str, rng: np.random.Generator | None, scaled: bool | None) -> np.ndarray:
  picture = opened(image)
  width, height = upright_size(picture)
  box, target = _placement(width, height, size, fit, rng)
  is_random = fit == "random_crop" and rng is not None
  scales = is_random if scaled is None else scaled
  scale = jpeg.enough(box[2] - box[0], box[3] - box[1], target) if scales else 1
  resample = Image.Resampling.BILINEAR if is_random else Image.Resampling.BICUBIC
  decoded = files.scaled(picture, image, scale)
  actual = decoded.shape[1] if isinstance(decoded, np.ndarray) else decoded.width
  scale = scale if actual < width else 1  # Formats other than JPEG come whole.
  pixels = np.asarray(_resized(decoded, _shrunk(box, scale), target, resample))
  if target != (size, size):
    return _framed(pixels, size)
  opaque = pixels.shape[-1] == 4 and pixels[..., 3].min() == 255
  return pixels[..., :3] if opaque else pixels


def _resized(
  picture: Image.Image | np.ndarray, box: Box, target: tuple[int, int], resample: Image.Resampling
) -> Image.Image | np.ndarray:
  """The part `box` of a decoded image as `target` (width, height), antialiased."""
  size = picture.shape[1::-1] if isinstance(picture, np.ndarray) else picture.size
  if size == target and box == (0, 0, *size):
    return picture
  # No pixel outside is copied but those that the filter reaches.
  reach = [1 + math.ceil(2 * max(1, (box[2 + i] - box[i]) / target[i])) for i in range(2)]
  left, top = (max(0, math.floor(box[i]) - reach[i]) for i in range(2))
  right, bottom = (min(size[i], math.ceil(box[2 + i]) + reach[i]) for i in range(2))
  if isinstance(picture, np.ndarray):
    picture = Image.fromarray(picture[top:bottom, left:right])
  elif (left, top, right, bottom) != (0, 0, *size):
    picture = picture.crop((left, top, right, bottom))
  box = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
  return picture.resize(target, resample, box=box)


def _shrunk(box: Box, scale: int) -> Box:
  left, top, right, bottom = (side / scale for side in box)
  return left, top, right, bottom


def _placement(
  width: int, height: int, size: int, fit: str, rng: np.random.Generator | None
) -> tuple[Box, tuple[int, int]]:
  """The crop box of the image, and the (width, height) that it is resized to."""
  full_box = (0.0, 0.0, float(width), float(height))
  if fit == "squash" or width == height and fit != "random_crop":
    return full_box, (size, size)
  if fit == "pad":
    scale = size / max(width, height)
    return full_box, (max(1, round(width * scale)), max(1, round(height * scale)))
  box_width = box_height = float(min(width, height))
  left, top = (width - box_width) / 2, (height - box_height) / 2
  if fit == "random_crop" and rng is not None:
    area = width * height * rng.uniform(0.08, 1.0)
    aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    box_width, box_height = min(width, np.sqrt(area * aspect)), min(height, np.sqrt(area / aspect))
    left, top = rng.uniform(0, width - box_width), rng.uniform(0, height - box_height)
  return (left, top, left + box_width, top + box_height), (size, size)


def _framed(pixels: np.ndarray, size: int) -> np.ndarray:
  """Pads `pixels` to a transparent square."""
  height, width, channels = pixels.shape
  top, left = (size - height) // 2, (size - width) // 2
  framed = np.zeros((size, size, 4), np.uint8)
  inside = framed[top : top + height, left : left + width]
  inside[..., 3] = 255
  inside[..., :channels] = pixels
  return framed
