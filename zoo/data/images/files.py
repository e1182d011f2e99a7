"""Opens image files and arrays as upright Pillow images with 8 bits per channel.

The EXIF orientation is applied. Grey images of 16 bits are scaled by 1/257, as
black is 0 and white 65,535; Pillow would clip everything above 255. Integers of 32 bits and floats have no white that a
file defines, so they are refused. Of an animation the first frame is used.
"""

import contextlib
import io
import os
import pathlib
from collections.abc import Generator
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from zoo.data.bad_records import BadRecord
from zoo.data.images import jpeg
from zoo.errors import UserError, shown

PICTURES = tuple(
  f".{ending}"
  for ending in (
    "png apng jpg jpeg jpe jfif mpo webp avif avifs gif bmp dib tif tiff ppm pgm pbm pnm pfm jp2 j2k j2c jpc jpf jpx "
    "tga pcx qoi ico icns dds sgi ras xbm xpm"
  ).split()
)
# In a folder these count as images too: one that Pillow cannot read is reported, not skipped.
ENDINGS = (*PICTURES, ".heic", ".heif", ".jxl", ".svg", ".eps", ".psd", ".cr2", ".nef", ".arw", ".dng")
# Excluded formats of Pillow: EPS would start Ghostscript, and WMF only works on Windows.
REFUSED = ("EPS", "WMF")
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations of images whose height is stored as their width.
_BITS, _PHOTOMETRIC = 258, 262  # Tags of TIFF.
TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}


@contextlib.contextmanager
def as_bad_record(what: str) -> Generator[None]:
  """Converts Pillow's exceptions to a BadRecord about `what`, in one line."""
  try:
    yield
  except (MemoryError, UserError):  # An error of this machine, not of the image; or already reported.
    raise
  except UnidentifiedImageError as error:
    raise BadRecord(f"{what}: the image cannot be decoded (Pillow does not know its format).") from error
  except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
    raise BadRecord(f"{what}: the image is refused ({error}).") from error
  except Exception as error:  # Each of Pillow's formats raises its own exceptions for corrupt files.
    raise BadRecord(f"{what}: the image cannot be decoded ({str(error)[:200] or type(error).__name__}).") from error


def content_of(path: str | os.PathLike, what: str) -> bytes:
  """The bytes of an image's file.

  Raises:
    UserError: there is no such file, or it cannot be read.
  """
  try:
    return pathlib.Path(path).expanduser().read_bytes()
  except FileNotFoundError as error:
    raise UserError(f"{what}: there is no file {shown(str(path), 300)}. Check the path.") from error
  except (OSError, ValueError, RuntimeError) as error:  # A name with a null byte, or the home of an unknown user.
    reason = getattr(error, "strerror", None) or error
    raise UserError(f"{what}: {shown(str(path), 300)} cannot be read ({reason}).") from error


def is_picture(text: str) -> bool:
  """Whether a text is the path of an image: it has an image's suffix, and is one word or an existing file.

  >>> is_picture("missing_photo.jpg"), is_picture("how to open a photo.jpg")
  (True, False)
  """
  exists = lambda: os.path.isfile(os.path.expanduser(text))
  return text.lower().endswith(ENDINGS) and (len(text.split()) == 1 or exists())


def opened(image: Any) -> Image.Image:
  """Opens the bytes of a file, or an array [height, width] or [height, width, 1, 3 or 4], without decoding."""
  if isinstance(image, np.ndarray):
    picture = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image)
  else:
    Image.init()
    picture = Image.open(io.BytesIO(image), formats=[kind for kind in Image.OPEN if kind not in REFUSED])
  limit = Image.MAX_IMAGE_PIXELS  # Pillow itself warns from here on and raises at twice as many.
  if limit and picture.width * picture.height > limit:
    raise Image.DecompressionBombError(f"{picture.width} x {picture.height} pixels; the limit is {limit}")
  return picture


def upright_size(picture: Image.Image) -> tuple[int, int]:
  """Width and height after the EXIF orientation; only TIFFs and PNGs are decoded for that."""
  if picture.format == "TIFF":  # Pillow rotates those itself on decoding.
    picture.load()
    return picture.size
  return picture.size[::-1] if _orientation(picture) in SIDEWAYS else picture.size


def plain(picture: Image.Image) -> Image.Image:
  """The decoded image, upright: RGB, or RGBA if it has transparent parts.

  Raises:
    ValueError: the range of the pixel values is unknown.
  """
  pixels = in_8_bits(picture)
  return _upright(pixels, None if picture.format == "TIFF" else _orientation(picture))


def scaled(picture: Image.Image, content: Any, scale: int) -> Image.Image | np.ndarray:
  """As `plain`; a JPEG at 1/2, 1/4 or 1/8 of its size, rounded up, in a fraction of the time, and perhaps as an array,
  uint8 [height, width, 3].

  Args:
    picture: from `opened`.
    content: what `opened` was called with.
    scale: 1, 2, 4 or 8. Other formats are decoded in full.
  """
  pixels = jpeg.decoded(content, picture, scale)
  if pixels is None:
    if scale > 1:
      picture.draft(None, (picture.width // scale, picture.height // scale))
    return plain(picture)
  orientation = _orientation(picture)
  return _upright(Image.fromarray(pixels), orientation) if orientation in TURNS else pixels


def _upright(picture: Image.Image, orientation: int | None) -> Image.Image:
  return picture if orientation not in TURNS else picture.transpose(TURNS[orientation])


def in_8_bits(picture: Image.Image) -> Image.Image:
  """An image of any mode as RGB, or RGBA if it has transparency, without rotation."""
  picture.load()
  mode, key = picture.mode, picture.info.get("transparency")
  if mode == "F" or mode == "I" and picture.format not in ("PNG", "PPM"):  # Those two hold 16 bits at most.
    kind = "floats" if mode == "F" else "integers of 32 bits"
    raise ValueError(f"its values are {kind}, of unknown range: save it with 8 or 16 bits")
  if mode == "I" or mode.startswith("I;16"):
    values = np.asarray(picture).astype(np.int64)
    tags = getattr(picture, "tag_v2", {})  # A TIFF may have 12 bits, and white as 0: Pillow does not convert that.
    white = 2 ** tags.get(_BITS, (16,))[0] - 1
    lightness = white - values if tags.get(_PHOTOMETRIC) == 0 else values
    grey = Image.fromarray(((2 * 255 * lightness + white) // (2 * white)).clip(0, 255).astype(np.uint8))
    if not isinstance(key, int):
      return grey.convert("RGB")
    grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey.convert("RGBA")
  if mode == "La":
    picture = picture.convert("LA")
  if isinstance(key, tuple) and max(key) > 255:  # RGB of 16 bits, of which Pillow reads the upper 8.
    picture.info["transparency"] = tuple(value >> 8 for value in key)
  # Transparency by Pillow's definition: an alpha channel, or a transparent colour or palette entry.
  return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def _orientation(picture: Image.Image) -> int | None:
  """The EXIF orientation, 1 to 8; None if it is missing or unreadable."""
  if picture.format == "PNG":
    # Its EXIF may follow the pixels, so Pillow decodes them for it. Their error is not the EXIF's, and is raised only
    # once: afterwards Pillow gives the half-decoded image.
    picture.load()
  try:
    return picture.getexif().get(ExifTags.Base.Orientation)
  except Exception:  # Likewise for corrupt EXIF.
    return None
