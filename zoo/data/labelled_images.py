"""Images with class labels: batches of `image`, `label`."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from zoo.data.bad_records import Policy
from zoo.data.class_labels import numbering
from zoo.data.columns import IMAGE, LABEL, column
from zoo.data.columns import class_names as class_names_of
from zoo.data.fields import SourceRecords, first_record
from zoo.data.images import pixels
from zoo.data.pipeline import Example
from zoo.data.screening import open_checked
from zoo.data.sources import Source
from zoo.errors import UserError


def labelled_images(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  image_size: int | None = None,
  fit: str = "crop",
  scaled: bool | None = None,
  background: str = "white",
  image_field: str | None = None,
  label_field: str | None = None,
  class_names: list[str] | None = None,
  classes: list[str] | None = None,
  labels: Mapping | None = None,
  cache: bool = False,
  bad_records: str | Mapping = "stop",
  processor: Any = None,
) -> "LabelledImages":
  """Labelled images of any size and mode, as RGB of one size, with class indices.

  Args:
    source, split, data_dir: see `zoo.data.sources.open_source`.
    image_size: pixels of each side; by default the model's, or without a model the first image's shorter side.
    fit: how an image becomes square: `crop`, `pad`, `squash`, `random_crop` (in training; evaluation crops the middle).
    scaled: whether JPEGs that are large enough are decoded at 1/2, 1/4 or 1/8 of their size; see
      `zoo.data.images.pixels.decode`. None: in random crops alone, so that evaluation is exact.
    background: colour behind transparent parts: `white` or `black`.
    image_field, label_field: fields of the source; None: `image` and `label`, or other usual names
      (`zoo.data.columns`). A label is an int, or a name if class names are known.
    class_names: names of the classes, in order of their indices; by default the source's, or those in `train`.
    classes, labels: names of a trained model's classes, and label of the data -> name or index of the class; as in
      `labelled_texts`.
    cache: keep decoded images in memory.
    bad_records: "stop" at the first one, or {"action": "skip", "most": 0.01}; see `zoo.data.bad_records`.
    processor: for a published model, instead of image_size, fit and background: `pixels(image, what)` are the images.
      Set by evaluators, not by configs.

  Each example: `image` uint8 [image_size, image_size, 3] (`zoo.data.images.augment`, or the objective, makes it float32
  on the
  device), `label` int32 []. `info`: source, image_size, class_names (None if unknown), num_classes (None if unknown).

  Raises:
    UserError: an unknown background, or labels that are no classes.
  """
  pixels.check(fit, image_size)
  if background not in ("white", "black"):
    raise UserError(f"background is '{background}'. It may be: white, black.")
  raw, rule = open_checked(source, split, data_dir, bad_records)
  image_field = column(raw, "image_field", image_field, IMAGE)
  label_field = column(raw, "label_field", label_field, LABEL)
  size_of = lambda record, index: pixels.natural_size(record[image_field], raw.where(index))
  decodes = lambda record, index: image_size or image_field not in record or size_of(record, index)
  first = first_record(raw, rule, image_field, label_field, check=decodes)
  if not class_names and classes is None:
    class_names = class_names_of(raw, source, split, data_dir, label_field, first[label_field])
  number, names = numbering(raw, label_field, class_names, classes, labels)
  image_size = image_size or pixels.natural_size(first[image_field], raw.name)
  fields = (image_field, label_field)
  return LabelledImages(raw, rule, fields, number, names, image_size, fit, scaled, background, cache, processor)


class LabelledImages(SourceRecords):
  """See `labelled_images`."""

  def __init__(
    self,
    source: Source,
    rule: Policy,
    fields: tuple[str, str],
    number: Callable[[Any, str], np.int32],
    class_names: list[str] | None,
    image_size: int,
    fit: str,
    scaled: bool | None,
    background: str,
    cache: bool,
    processor: Any,
  ):
    super().__init__(source, rule, cache)
    self.fields, self.image_size, self.fit, self.scaled, self.processor = fields, image_size, fit, scaled, processor
    self.colour = pixels.BLACK if background == "black" else pixels.WHITE
    self.class_names, self.number = class_names, number
    self.info = {
      "source": source.name,
      "image_size": image_size,
      "class_names": class_names,
      "num_classes": len(class_names) if class_names else None,
    }

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    image, label = self.prepared[index]
    if self.fit == "random_crop":
      image = self._decode(image, index, rng)
    return {"image": image, "label": label}

  def _prepare(self, raw: dict[str, Any], index: int) -> tuple[Any, np.int32]:
    """The epoch-independent part: image and label."""
    self._check(raw, index, *self.fields)
    image, label = (raw[field] for field in self.fields)
    if self.fit != "random_crop":
      image = self._decode(image, index, None)
    return image, self.number(label, self.source.where(index))

  def _decode(self, image: Any, index: int, rng: np.random.Generator | None) -> np.ndarray:
    if self.processor is not None:
      return self.processor.pixels(image, self.source.where(index))
    what = self.source.where(index)
    return pixels.over(pixels.decode(image, self.image_size, self.fit, what, rng, self.scaled), self.colour)
