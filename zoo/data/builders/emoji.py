"""Emoji drawn by three vendors, with names and keywords: real image-text pairs of 32 px. See NOTICE."""

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from zoo.data import package_data

VENDORS = ("noto", "twemoji", "openmoji")
SIZE = 32  # pixels of a side of a drawing
CONFIGS = {
  "rotation": "Of each concept's three drawings two train and one is held out: Noto, Twemoji, OpenMoji in turn.",
  "style": "Train on Noto and Twemoji, test on OpenMoji, a style never seen.",
  "concepts": "200 concepts are held out in all vendors; variants of a concept (gender, hair) are held out together.",
  "flags": "The 261 flags of countries and regions, which no other config holds, with splits like those of `rotation`.",
}


class Emoji(tfds.core.GeneratorBasedBuilder):
  """`tfds:emoji[/rotation|style|concepts|flags]`, splits train and test.

  Features: `image` (32, 32, 4) with transparency; `name`, e.g. "woman firefighter"; `keywords`, up to some dozens and
  sometimes none; `concept`, an int that drawings of the same thing share, the same in every config; `vendor`.
  """

  VERSION = tfds.core.Version("1.0.1")  # Raise it when a shipped file changes: prepared copies are found by it.
  BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name, description=text) for name, text in CONFIGS.items()]

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=__doc__,
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(SIZE, SIZE, 4), encoding_format="png"),
          "name": tfds.features.Text(),
          "keywords": tfds.features.Sequence(tfds.features.Text()),
          "concept": np.int64,
          "vendor": tfds.features.ClassLabel(names=VENDORS),
        }
      ),
      supervised_keys=("image", "name"),
      license="Noto: Apache-2.0. Twemoji: CC-BY 4.0. OpenMoji: CC-BY-SA 4.0. Names: BSD-3-Clause. Keywords: MIT, ISC.",
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
    return {split: self._generate_examples(split) for split in ("train", "test")}

  def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
    concepts = [json.loads(line) for line in package_data.lines("emoji/concepts.jsonl")]
    for vendor in VENDORS:
      drawings = package_data.tiles(f"emoji/{vendor}.webp", SIZE, "RGBA")
      for number, concept in enumerate(concepts):
        if split_of(concept, vendor, self.builder_config.name) == split:
          png = io.BytesIO()
          Image.fromarray(drawings[number]).save(png, "PNG", compress_level=1)
          png.seek(0)
          example = {"name": concept["name"], "keywords": concept["keywords"], "concept": number, "vendor": vendor}
          yield f"{number}-{vendor}", {"image": png, **example}


def split_of(concept: dict, vendor: str, config: str) -> str | None:
  """The split of `config` that holds `vendor`'s drawing of `concept`; None if it has no part in the config."""
  if concept["is_flag"] != (config == "flags"):
    return None
  held_out = {
    "style": vendor == "openmoji",
    "concepts": concept["held_out_concept"],
  }.get(config, vendor == concept["held_out_vendor"])
  return "test" if held_out else "train"
