"""Decodes JPEGs with libjpeg-turbo if simplejpeg is installed: the pixels of Pillow without its copies."""

import importlib
from typing import Any

import numpy as np
from PIL import Image

try:
  simplejpeg: Any = importlib.import_module("simplejpeg")
except ImportError:
  simplejpeg = None

SCALES = (8, 4, 2)  # Downscaling factors in JPEG decoding, from blocks of 8 x 8 pixels.


def enough(width: float, height: float, target: tuple[int, int]) -> int:
  """The largest scale at which a crop of `width` x `height` pixels is not smaller than `target`; 1 if there is none.

  >>> enough(900.0, 700.0, (224, 224))
  2
  """
  return next((scale for scale in SCALES if width >= scale * target[0] and height >= scale * target[1]), 1)


def decoded(content: Any, picture: Image.Image, scale: int) -> np.ndarray | None:
  """Decodes a colour JPEG at 1/`scale` of its size, rounded up, like Pillow: uint8 [height, width, 3].

  None if Pillow is needed: other formats or colours, corrupt files, or without simplejpeg.

  Args:
    content: bytes of the file.
    picture: opened from them, and not decoded.
    scale: 1 or one of SCALES.
  """
  if picture.format != "JPEG" or picture.mode != "RGB" or getattr(picture, "layers", 0) != 3:
    return None
  if not isinstance(content, bytes) or simplejpeg is None:
    return None
  width, height = (-(-side // scale) for side in picture.size)
  try:
    pixels = simplejpeg.decode_jpeg(content, min_height=height, min_width=width)
  except ValueError:  # For truncated or corrupt files Pillow has the error message, or decodes a part.
    return None
  return pixels if pixels.shape == (height, width, 3) else None
