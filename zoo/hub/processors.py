"""Image processors from preprocessor_config.json, with every entry interpreted."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from zoo.convert.rules.options import Options
from zoo.data.images import files
from zoo.errors import UserError

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
HALF = [0.5, 0.5, 0.5]
MOST = 2**25  # Maximum pixels of an image: 0.8 GB as temporary float64.
BILINEAR, BICUBIC = int(Image.Resampling.BILINEAR), int(Image.Resampling.BICUBIC)
# Defaults of the reference's classes.
_CLIP = dict(resample=BICUBIC, size={"shortest_edge": 224}, square=False, crop=224, mean=CLIP_MEAN, std=CLIP_STD)
_VIT = dict(resample=BILINEAR, size={"height": 224, "width": 224}, square=True, crop=None, mean=HALF, std=HALF)
CLASSES: dict[str, dict[str, Any]] = {
  "CLIP": _CLIP,
  "Bit": _CLIP,
  "ViT": _VIT,
  "Siglip": {**_VIT, "resample": BICUBIC, "square": False},
  "Siglip2": _VIT,
}


class ImageProcessor(NamedTuple):
  """Image processor by Pillow and numpy: images of any size and mode -> {"image": float32 [batch, height, width, 3]}.

  In this order: convert to RGB over white, resize, centre crop, normalise: (scale * image - mean) / std.

  Args:
    edge: pixels of the shorter side after resizing, or (height, width), or None: not resized.
    resample: a `PIL.Image.Resampling`.
    crop: (height, width) of the centre crop, padded with black; None: no crop.
    scale: factor; None: 1.
    mean, std: per channel; None: not normalised.
    rounds: whether the offset of the crop is rounded as in torchvision, else rounded down.
  """

  edge: int | tuple[int, int] | None
  resample: int
  crop: tuple[int, int] | None
  scale: float | None
  mean: tuple[float, ...] | None
  std: tuple[float, ...] | None
  rounds: bool = False

  @classmethod
  def from_options(cls, options: Options, defaults: Mapping[str, Any]) -> "ImageProcessor":
    """From the entries of a file; unknown ones are refused."""
    square = options.take("default_to_square", defaults["square"])  # What a size that is one number means.
    size = _size(options, "size", defaults["size"], square)
    crop = _size(options, "crop_size", defaults["crop"] or 224, True)
    resample = options.take("resample", defaults["resample"], int)
    if resample not in list(Image.Resampling):
      raise options.refusal("resample", resample, map(int, Image.Resampling))
    if isinstance(crop, int):
      raise options.refusal("crop_size", options.entries["crop_size"], [{"height": crop, "width": crop}])
    scale = options.take("rescale_factor", 1 / 255, (int, float))
    if abs(scale) > 1e6:  # The reference computes in 32 bits.
      raise options.refusal("rescale_factor", scale, ["a number like 1/255"])
    mean, std = (colours(options, f"image_{name}", defaults[name]) for name in ("mean", "std"))
    options.must_be("do_pad", None, False)
    options.must_be("do_convert_rgb", None, True, False)  # Other modes would not work otherwise.
    options.must_be("data_format", "channels_first")  # Our models take channels last.
    options.ignore("image_processor_type", "feature_extractor_type", "processor_class", "_valid_processor_keys")
    options.ignore("return_tensors", "input_data_format", "device", "disable_grouping", "backend")
    resized = options.take("do_resize", True)
    cropped = options.take("do_center_crop", defaults["crop"] is not None)
    if cropped and defaults["crop"] is None and options.entries.get("crop_size") is None:
      raise UserError(f"{options.where}: do_center_crop is true, and there is no crop_size. Add it.")
    scaled, normalised = options.take("do_rescale", True), options.take("do_normalize", True)
    options.done()
    return cls(
      size if resized else None,
      resample,
      crop if cropped else None,
      scale if scaled else None,
      mean if normalised else None,
      std if normalised else None,
    )

  def __call__(self, images: Any) -> dict[str, np.ndarray]:
    """One image or several: PIL images, uint8 [height, width] or [height, width, 1, 3 or 4], bytes of a file, paths."""
    images = images if isinstance(images, Sequence) and not isinstance(images, str | bytes) else [images]
    if not images:
      raise UserError("There is no image to process.")
    done = [self._one(image, f"image {number}") for number, image in enumerate(images)]
    shapes = {image.shape[:2] for image in done}
    if len(shapes) > 1:
      some = " and ".join(f"{height} x {width}" for height, width in sorted(shapes)[:2])
      raise UserError(f"The processed images have {len(shapes)} sizes, e.g. {some}. Process them one at a time.")
    return {"image": np.stack(done)}

  def _one(self, image: Any, what: str) -> np.ndarray:
    array = self.pixels(image, what)
    # Dtypes as in the reference, for bit-equal results.
    if self.scale is not None:
      array = (array.astype(np.float64) * self.scale).astype(np.float32)
    array = array.astype(np.float32)
    if self.mean is not None:
      array = (array - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
    return array

  def pixels(self, image: Any, what: str) -> np.ndarray:
    """One image before normalisation: uint8 [height, width, 3]; `what` names it in messages."""
    picture = opened(image, what)
    if self.edge is not None:
      height, width = self._resized(picture.height, picture.width, what)
      picture = picture.resize((width, height), Image.Resampling(self.resample))
    array = np.asarray(picture)
    return array if self.crop is None else center_crop(array, *self.crop, rounds=self.rounds)

  @property
  def shape(self) -> tuple[int, int] | None:
    """(height, width) of every image; None if it varies."""
    return self.crop or (self.edge if isinstance(self.edge, tuple) else None)

  def _resized(self, height: int, width: int, what: str) -> tuple[int, int]:
    if isinstance(self.edge, tuple):
      return self.edge
    edge = self.edge or 0
    new = (edge, int(edge * width / height)) if height <= width else (int(edge * height / width), edge)
    if math.prod(new) > MOST:
      raise UserError(
        f"{what} has {height} x {width} pixels; with the shorter side at {edge} it would have {new[0]} x {new[1]}, "
        "too many for memory. Crop it first."
      )
    return new


class PatchProcessor(NamedTuple):
  """NaFlex processor: images of any size and shape -> {"image": {"patches", "valid", "grid"}} for `zoo.models.siglip2`.

  Args:
    plain: processor with the normalisation.
    patch_size: pixels per side of a patch.
    most: maximum patches of an image, which is resized to nearly as many, keeping its aspect ratio; fewer are padded.
  """

  plain: ImageProcessor
  patch_size: int
  most: int

  @classmethod
  def from_options(cls, options: Options, defaults: Mapping[str, Any]) -> "PatchProcessor":
    """From the entries of a file; unknown ones are refused."""
    sizes = {name: options.take(name, default) for name, default in (("patch_size", 16), ("max_num_patches", 256))}
    for name, size in sizes.items():
      if not 0 < size < 2**15:
        raise options.refusal(name, size, ["a number above 0"])
    if sizes["patch_size"] ** 2 * sizes["max_num_patches"] > MOST:
      raise UserError(
        f"{options.where}: max_num_patches {sizes['max_num_patches']} of patch_size {sizes['patch_size']} are too "
        f"many pixels: the limit is {MOST}."
      )
    options.must_be("do_resize", True)
    plain = ImageProcessor.from_options(options, defaults)
    return cls(plain._replace(crop=None), *sizes.values())  # do_center_crop changes nothing in the reference.

  def __call__(self, images: Any) -> dict[str, dict[str, np.ndarray]]:
    """One image or several, as in `ImageProcessor`."""
    images = images if isinstance(images, Sequence) and not isinstance(images, str | bytes) else [images]
    if not images:
      raise UserError("There is no image to process.")
    rows = [self._patches(opened(image, f"image {number}"), f"image {number}") for number, image in enumerate(images)]
    names = ("patches", "valid", "grid")
    return {"image": {name: np.stack(arrays) for name, arrays in zip(names, zip(*rows, strict=True), strict=True)}}

  def _patches(self, picture: Image.Image, what: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, columns = self._grid(picture.height, picture.width)
    return self._cut(self._at(rows, columns)._one(picture, what), rows, columns)

  def pixels(self, image: Any, what: str) -> dict[str, np.ndarray]:
    """One image before normalisation, with uint8 patches."""
    picture = opened(image, what)
    rows, columns = self._grid(picture.height, picture.width)
    cut = self._cut(self._at(rows, columns).pixels(picture, what), rows, columns)
    return dict(zip(("patches", "valid", "grid"), cut, strict=True))

  def _at(self, rows: int, columns: int) -> ImageProcessor:
    return self.plain._replace(edge=(rows * self.patch_size, columns * self.patch_size))

  def _cut(self, pixels: np.ndarray, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    p = self.patch_size
    patches = pixels.reshape(rows, p, columns, p, -1).swapaxes(1, 2).reshape(rows * columns, -1)
    padded = np.pad(patches, ((0, self.most - len(patches)), (0, 0)))
    return padded, np.arange(self.most) < len(patches), np.array([rows, columns], np.int32)

  def _grid(self, height: int, width: int) -> tuple[int, int]:
    """Rows and columns at the largest scale with few enough patches, by bisection as in the reference."""

    def at(scale: float) -> tuple[int, int]:
      rows, columns = (max(math.ceil(size * scale / self.patch_size), 1) for size in (height, width))
      return rows, columns

    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
      scale = (low + high) / 2
      low, high = (scale, high) if math.prod(at(scale)) <= self.most else (low, scale)
    return at(low)


def opened(image: Any, what: str) -> Image.Image:
  """Opens an image as RGB, with transparency over white.

  Files and bytes are rotated by their EXIF orientation; a PIL image is not, as in the reference:
  use `PIL.ImageOps.exif_transpose` for one that was opened from a photo.
  """
  with files.as_bad_record(what):
    if isinstance(image, Image.Image):
      picture, converted = image, files.in_8_bits
    else:
      if isinstance(image, str | os.PathLike):
        image = files.content_of(image, what)
      elif not isinstance(image, bytes):
        image = checked(np.asarray(image), what)
      picture, converted = files.opened(image), files.plain
    # A palette with alpha but without a transparent entry is opaque in the reference.
    opaque = not {"A", "a"} & set(picture.getbands()) and picture.info.get("transparency") is None
    picture = converted(picture)
    if picture.mode == "RGBA" and not opaque:
      picture = Image.alpha_composite(Image.new("RGBA", picture.size, (255, 255, 255, 255)), picture)
    return picture.convert("RGB")


def center_crop(array: np.ndarray, height: int, width: int, rounds: bool = False) -> np.ndarray:
  """Centre crop of an image [h, w, 3], padded with black."""
  spare = [actual - target for actual, target in zip(array.shape, (height, width))]
  top, left = (round(lines / 2) if rounds else lines // 2 for lines in spare)
  # For padding, the reference puts the odd line first.
  before = [max(-(-(target - actual) // 2), 0) for actual, target in zip(array.shape, (height, width))]
  after = [max(target - actual, 0) - first for actual, target, first in zip(array.shape, (height, width), before)]
  array = np.pad(array, [*zip(before, after), (0, 0)])
  top, left = max(top + before[0], 0), max(left + before[1], 0)
  return array[top : top + height, left : left + width]


def checked(array: np.ndarray, what: str) -> np.ndarray:
  """Returns an image uint8 [height, width] or [height, width, 1, 3 or 4]; UserError with dtype and shape for others."""
  if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.ndim == 3 and array.shape[-1] not in (1, 3, 4):
    raise UserError(
      f"{what} is {array.dtype} {array.shape}. It must be uint8 [height, width] or [height, width, 1, 3 or 4], "
      "a PIL image, the bytes of a file, or a path."
    )
  return array


def _size(options: Options, name: str, default: Any, square: bool) -> int | tuple[int, int]:
  """The shorter side, or (height, width)."""
  size = options.take(name, default, (int, dict, list))
  if isinstance(size, int):
    size = {"height": size, "width": size} if square else {"shortest_edge": size}
  if isinstance(size, list) and len(size) == 2:
    size = dict(zip(("height", "width"), size))
  # The reference writes unused sizes as null.
  size = {key: value for key, value in size.items() if value is not None} if isinstance(size, dict) else size
  is_valid = isinstance(size, dict) and all(type(value) is int and 0 < value < 2**15 for value in size.values())
  if is_valid and set(size) == {"shortest_edge"}:
    return size["shortest_edge"]
  if is_valid and set(size) == {"height", "width"} and math.prod(size.values()) <= MOST:
    return size["height"], size["width"]
  raise options.refusal(name, options.entries[name], [{"shortest_edge": 224}, {"height": 224, "width": 224}])


def colours(options: Options, name: str, default: Sequence[float]) -> tuple[float, ...]:
  """One number for each of three colours."""
  values = options.take(name, list(default), (int, float, list))
  values = values if isinstance(values, list) else [values] * 3
  number = lambda value: isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6  # Not NaN.
  is_valid = len(values) == 3 and all(map(number, values))
  if not is_valid or name.endswith("std") and not all(values):
    raise options.refusal(name, options.entries[name], [list(default)])
  return tuple(values)
