"""Tiny data in every format, written into a folder."""

import csv
import io
import json
import tarfile

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def png(value, size=(5, 7), mode="RGB"):
  """A one-coloured image of (height, width) as the bytes of a PNG."""
  file = io.BytesIO()
  Image.new(mode, size[::-1], value).save(file, "PNG")
  return file.getvalue()


def wav(hertz, seconds=0.3, rate=16000):
  """A tone as the bytes of a WAV file."""
  import soundfile

  file = io.BytesIO()
  wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
  soundfile.write(file, wave.astype(np.float32), rate, format="WAV")
  return file.getvalue()


def write(folder, files):
  """Writes {path: text or bytes} into a folder."""
  for path, content in files.items():
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())
  return folder


def write_jsonl(path, records):
  path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_csv(path, records):
  with open(path, "w", newline="") as file:
    table = csv.DictWriter(file, list(records[0]))
    table.writeheader()
    table.writerows(records)


def write_tar(path, members):
  """Writes {name of member: content}."""
  with tarfile.open(path, "w") as tar:
    for name, content in members.items():
      content = content if isinstance(content, bytes) else content.encode()
      entry = tarfile.TarInfo(name)
      entry.size = len(content)
      tar.addfile(entry, io.BytesIO(content))


class ToyPairs(tfds.core.GeneratorBasedBuilder):
  """23 pairs of a grey 8 x 8 image, half transparent, and a name; 7 more in the split test."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    features = {
      "image": tfds.features.Image(shape=(8, 8, 4), encoding_format="png"),
      "name": tfds.features.Text(),
      "keywords": tfds.features.Sequence(tfds.features.Text()),
      "concept": np.int64,
      "label": tfds.features.ClassLabel(names=["even", "odd"]),
    }
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples(range(23)), "test": self._generate_examples(range(23, 30))}

  def _generate_examples(self, numbers):
    for i in numbers:
      image = io.BytesIO(png((i, i, i, 255 * (i % 2)), (8, 8), "RGBA"))
      others = {"keywords": [f"word {i}", "thing"], "concept": i, "label": i % 2}
      yield i, {"image": image, "name": f"number {i}", **others}


def everything(source):
  return [source[i] for i in range(len(source))]
