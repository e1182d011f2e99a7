"""JPEGs as arrays by libjpeg-turbo alone, where simplejpeg is installed: Pillow's pixels without its copies of them."""

import importlib
from typing import Any

import numpy as np
from PIL import Image

try:
  simplejpeg: Any = importlib.import_module("simplejpeg")
except ImportError:
  simplejpeg = None

SCALES = (8, 4, 2)  # By which a JPEG may shrink while it is decoded: its blocks have 8 x 8 pixels.


def enough(width: float, height: float, target: tuple[int, int]) -> int:
  """The largest scale at which a part of `width` x `height` pixels still has those of `target`; 1 if none is.

  >>> enough(900.0, 700.0, (224, 224))
  2
  """
  return next((scale for scale in SCALES if width >= scale * target[0] and height >= scale * target[1]), 1)


def decoded(content: Any, picture: Image.Image, scale: int) -> np.ndarray | None:
  """A JPEG in colour at 1/`scale` of its size, rounded up: uint8 [height, width, 3], as Pillow decodes it.

  None where Pillow has to: another format or colours, a file that is damaged, or simplejpeg is not installed.

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
  except ValueError:  # Of files that are cut off or damaged Pillow says what is wrong, or takes what there is.
    return None
  return pixels if pixels.shape == (height, width, 3) else None
