"""Images with class labels: batches of `image`, `label`."""

from typing import Any

import numpy as np

from zoo.data import pixels
from zoo.data.fields import Prepared, check_fields, class_number
from zoo.data.pipeline import Example, Records
from zoo.data.sources import Source, open_source
from zoo.errors import UserError


def labelled_images(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  image_size: int | None = None,
  fit: str = "crop",
  background: str = "white",
  image_field: str = "image",
  label_field: str = "label",
  class_names: list | None = None,
  cache: bool = False,
) -> "LabelledImages":
  """Images of any size and mode, as RGB of one size, with the number of their class.

  Args:
    source, split, data_dir: as `zoo.data.sources.open_source` takes them.
    image_size: pixels of each side; by default those of the shorter side of the first image.
    fit: how an image becomes square: `crop`, `pad`, `squash`, `random_crop` (in training; evaluation crops the middle).
    background: what shows through transparent parts: `white` or `black`.
    image_field, label_field: fields of the source. A label is a whole number, or a name where class names are known.
    class_names: names of the classes, in the order of their numbers; by default the source's, if it knows them.
    cache: keep decoded images in memory.

  Each example: `image` uint8 [image_size, image_size, 3] (`zoo.data.augment` makes it float32 in [-1, 1] on the
  device), `label` int32 []. `info`: source, image_size, class_names (None if unknown), num_classes (None if unknown).
  """
  pixels.check(fit, image_size)
  if background not in ("white", "black"):
    raise UserError(f"background is '{background}'. It may be: white, black.")
  raw = open_source(source, split, data_dir)
  check_fields(raw, image_field, label_field)
  names = list(class_names) if class_names else raw.class_names.get(label_field)
  image_size = image_size or pixels.natural_size(raw[0][image_field], f"{raw.name}, record 0")
  return LabelledImages(raw, (image_field, label_field), names, image_size, fit, background, cache)


class LabelledImages(Records):
  """See `labelled_images`."""

  def __init__(
    self,
    source: Source,
    fields: tuple[str, str],
    class_names: list[str] | None,
    image_size: int,
    fit: str,
    background: str,
    cache: bool,
  ):
    self.source, self.fields, self.image_size, self.fit = source, fields, image_size, fit
    self.colour = pixels.BLACK if background == "black" else pixels.WHITE
    self.class_names = class_names
    self.numbers = {name: number for number, name in enumerate(class_names or ())}
    self.prepared = Prepared(source, self._prepare, cache)
    self.info = {
      "source": source.name,
      "image_size": image_size,
      "class_names": class_names,
      "num_classes": len(class_names) if class_names else None,
    }

  def __len__(self) -> int:
    return len(self.source)

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    image, label = self.prepared[index]
    if self.fit == "random_crop":
      image = self._decode(image, index, rng)
    return {"image": image, "label": label}

  def _prepare(self, raw: dict[str, Any], index: int) -> tuple[Any, np.int32]:
    """What does not change from epoch to epoch."""
    missing = [field for field in self.fields if field not in raw]
    if missing:
      raise UserError(f"{self.source.name}, record {index} has no '{missing[0]}'.")
    image, label = (raw[field] for field in self.fields)
    if self.fit != "random_crop":
      image = self._decode(image, index, None)
    return image, class_number(label, self.numbers, f"{self.source.name}, record {index}")

  def _decode(self, image: Any, index: int, rng: np.random.Generator | None) -> np.ndarray:
    what = f"{self.source.name}, record {index}"
    return pixels.over(pixels.decode(image, self.image_size, self.fit, what, rng), self.colour)
