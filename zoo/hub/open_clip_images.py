"""open_clip's image preprocessing: `preprocess_cfg` of an open_clip_config.json.

https://github.com/mlfoundations/open_clip/blob/main/src/open_clip/transform.py
"""

import os
import pathlib
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from zoo.convert.rules.options import Options, check_ignored
from zoo.data.tokenizers.open_clip import CONFIG
from zoo.errors import UserError
from zoo.hub.files import read_json
from zoo.hub.open_clip import side
from zoo.hub.processors import BICUBIC, BILINEAR, CLIP_MEAN, CLIP_STD, ImageProcessor, colours, opened
from zoo.preprocessing import RESAMPLES

MODES = ("shortest", "squash", "longest")
WAYS = {"bicubic": BICUBIC, "bilinear": BILINEAR, "random": BICUBIC}  # Random augmentation is for training.


class LongestImages(NamedTuple):
  """Letterboxing: the longer side resized and the rest filled, -> {"image": [batch, size, size, 3]}.

  Args:
    size: pixels per side.
    fill: value of the padding, 0 is black.
    plain: processor with resampling and normalisation.
  """

  size: int
  fill: int
  plain: ImageProcessor

  def __call__(self, images: Any) -> dict[str, np.ndarray]:
    """One image or several, as in `ImageProcessor`."""
    images = images if isinstance(images, Sequence) and not isinstance(images, str | bytes) else [images]
    if not images:
      raise UserError("There is no image to process.")
    return self.plain([self._resized(opened(image, f"image {number}")) for number, image in enumerate(images)])

  def _resized(self, picture: Image.Image) -> Image.Image:
    ratio = max(picture.size) / self.size
    sides = [max(round(length / ratio), 1) for length in picture.size]
    canvas = Image.new("RGB", (self.size, self.size), (self.fill,) * 3)
    # An odd row or column of padding comes last.
    corner = [(self.size - length) // 2 for length in sides]
    canvas.paste(picture.resize((sides[0], sides[1]), Image.Resampling(self.plain.resample)), (corner[0], corner[1]))
    return canvas


def read(folder: pathlib.Path, ignore: Collection[str] = ()) -> ImageProcessor | LongestImages:
  """Reads the processor of a folder. The size is the model's, not that of preprocess_cfg.

  ignore: entries of the file to ignore; `SECTION.NAME` for those of a section.

  Raises:
    UserError: an unsupported resize mode or interpolation, or colours that are not three numbers.
  """
  entries = read_json(folder / CONFIG)
  check_ignored(ignore, {str(folder / CONFIG): entries})
  whole = Options(entries, str(folder / CONFIG), ignore=ignore, may_ignore=True)
  size = side(whole.section("model_cfg").section("vision_cfg"), "image_size", 224)
  options = whole.section("preprocess_cfg")
  options.must_be("mode", "RGB", None)
  options.ignore("size")
  mode, name = options.take("resize_mode", MODES[0]), options.take("interpolation", "bicubic")
  if mode not in MODES:
    raise options.refusal("resize_mode", mode, MODES)
  if name not in WAYS:
    raise options.refusal("interpolation", name, WAYS)
  mean, std = colours(options, "mean", CLIP_MEAN), colours(options, "std", CLIP_STD)
  fill = options.take("fill_color", 0)
  if not 0 <= fill < 256:
    raise options.refusal("fill_color", fill, ["0 to 255"])
  options.done()
  plain = ImageProcessor(None, WAYS[name], None, 1 / 255, mean, std, rounds=True)
  if mode == "longest":
    return LongestImages(size, fill, plain)
  square = (size, size)
  return plain._replace(edge=square) if mode == "squash" else plain._replace(edge=size, crop=square)


def preprocessing_of(folder: pathlib.Path, ignore: Collection[str] = ()) -> dict[str, Any]:
  """The preprocessing stored in the model of a folder: see `zoo.preprocessing`; `ignore` as in `read`."""
  tokenizer = os.path.abspath(folder)
  try:
    processor = read(folder, ignore)
  except UserError as error:
    return {"image": {"unknown": str(error)}, "tokenizer": tokenizer}
  if isinstance(processor, LongestImages):
    reason = f"{folder / CONFIG}: resize_mode is longest, which data pipelines do not support. Use zoo.load_processor."
    return {"image": {"unknown": reason}, "tokenizer": tokenizer}
  edge, crop = processor.edge, processor.crop
  image = {
    "scale": processor.scale,
    "mean": list(processor.mean or ()),
    "std": list(processor.std or ()),
    "resize": list(edge) if isinstance(edge, tuple) else edge,
    "resample": RESAMPLES[processor.resample],
    "crop": None if crop is None else list(crop),
    "crop_rounds": True,
  }
  return {"image": image, "tokenizer": tokenizer}
