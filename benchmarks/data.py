"""CPU time that data take on their way into the step, beside webdataset with torch's DataLoader, and grain alone.

    pip install webdataset          # or the extra parity; without it only the zoo and grain are timed
    python -m benchmarks.data
    python -m benchmarks.data --photos 1024x768 --repeats 5

Photographs (crops of scikit-learn's two, as JPEGs) become random crops of 224 pixels in batches of 64: from tars,
Parquet and array_record by the zoo, from tars by webdataset and torch, from array_record by grain with the same Pillow
calls as torch. Text becomes rows of 1,024 tokens: from JSON lines by the zoo, whose tokens come from its cache, filled
once, and by torch, which tokenises in every epoch. All sides run in a process of their own, by turns; batches are made
one after the other, none ahead, so that all CPU time is that of its batch.

The zoo's images are uint8, which the step normalises on the device. torch's are float32 and normalised, as in
torchvision's recipes; the row "uint8" leaves that out. Two cores make 2 / (CPU time of an image) images a second.
"""

import functools
import io
import itertools
import json
import math
import os
import pathlib
import tarfile
import tempfile
from typing import Any

import numpy as np

from benchmarks import sides

SIZE, BATCH, LENGTH = 224, 64, 1024
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photographs(count: int, width: int, height: int) -> list[bytes]:
  """JPEGs of `width` x `height` pixels, each another crop of one of scikit-learn's photographs."""
  from PIL import Image
  from sklearn.datasets import load_sample_image

  rng, pictures = (
    np.random.default_rng(0),
    [Image.fromarray(load_sample_image(f"{n}.jpg")) for n in ("china", "flower")],
  )
  contents = []
  for number in range(count):
    picture = pictures[number % 2]
    share = rng.uniform(0.7, 1)
    box_width = share * min(picture.width, picture.height * width / height)
    box_height = box_width * height / width
    left, top = rng.uniform(0, picture.width - box_width), rng.uniform(0, picture.height - box_height)
    box = (left, top, left + box_width, top + box_height)
    file = io.BytesIO()
    picture.resize((width, height), Image.Resampling.BICUBIC, box=box).save(file, "JPEG", quality=93)
    contents.append(file.getvalue())
  return contents


def write(folder: pathlib.Path, contents: list[bytes], texts: list[str]) -> None:
  """Writes the photographs as tars, Parquet and array_record, and the texts as JSON lines."""
  import pyarrow
  import pyarrow.parquet
  from array_record.python.array_record_module import ArrayRecordWriter

  for shard in range(2):
    with tarfile.open(folder / f"{shard}.tar", "w") as tar:
      for number in range(shard, len(contents), 2):
        for ending, content in (("jpg", contents[number]), ("cls", b"%d" % (number % 7))):
          entry = tarfile.TarInfo(f"{number:06}.{ending}")
          entry.size = len(content)
          tar.addfile(entry, io.BytesIO(content))
  table = pyarrow.table({"image": contents, "label": [number % 7 for number in range(len(contents))]})
  pyarrow.parquet.write_table(table, folder / "photos.parquet", row_group_size=64)
  writer = ArrayRecordWriter(str(folder / "photos.array_record"), "group_size:1")
  for content in contents:
    writer.write(content)
  writer.close()
  (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def builder(contents: list[bytes]) -> Any:
  """A TFDS builder of the photographs, which the zoo reads as `tfds:bench_photos`."""
  import tensorflow_datasets as tfds

  class BenchPhotos(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      features = {"image": tfds.features.Image(encoding_format="jpeg"), "label": np.int64}
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
      return {"train": self._generate_examples()}

    def _generate_examples(self):
      for number, content in enumerate(contents):
        yield number, {"image": io.BytesIO(content), "label": number % 7}

  return BenchPhotos


def zoo_images(source: str, data_dir: str, cache: str, photos: tuple[int, int, int]) -> Any:
  """-> run(batches), the zoo's training batches of images."""
  os.environ["ZOO_CACHE"] = cache
  from zoo.data.labelled_images import labelled_images
  from zoo.data.pipeline import batches

  known = builder(photographs(*photos)) if source.startswith("tfds:") else None  # To TFDS, as long as it is there.
  records = labelled_images(source, data_dir=data_dir, image_size=SIZE, fit="random_crop")
  del known
  made, steps = batches(records, BATCH, seed=0), itertools.count()

  def run(count: int) -> dict:
    return {"examples": sum(len(made[next(steps)]["image"]) for _ in range(count))}

  run(2)
  return run


def zoo_text(source: str, data_dir: str, cache: str) -> Any:
  """-> run(batches), the zoo's training batches of text."""
  os.environ["ZOO_CACHE"] = cache
  from zoo.data.language import language
  from zoo.data.pipeline import batches

  made, steps = batches(language(source, max_length=LENGTH), 8, seed=0), itertools.count()

  def run(count: int) -> dict:
    return {"examples": sum(made[next(steps)]["tokens"].size for _ in range(count))}

  run(2)
  return run


def random_crop(content: Any, rng: np.random.Generator) -> Any:
  """RandomResizedCrop of torchvision with its defaults and Pillow's calls -> a Pillow image."""
  from PIL import Image

  picture = (Image.open(io.BytesIO(content)) if isinstance(content, bytes) else content).convert("RGB")
  for _ in range(10):
    area = picture.width * picture.height * rng.uniform(0.08, 1)
    ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if 0 < width <= picture.width and 0 < height <= picture.height:
      break
  else:
    width = height = min(picture.size)
  left, top = rng.integers(0, picture.width - width + 1), rng.integers(0, picture.height - height + 1)
  crop = picture.crop((left, top, left + width, top + height))
  return crop.resize((SIZE, SIZE), Image.Resampling.BILINEAR)


def torch_images(pattern: str, normalised: bool) -> Any:
  """-> run(batches), those of webdataset and torch's DataLoader, in its process."""
  import torch
  import webdataset

  torch.set_num_threads(1)
  rng = np.random.default_rng(0)
  mean, std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))

  def transformed(picture: Any) -> Any:
    pixels = torch.from_numpy(np.array(random_crop(picture, rng))).permute(2, 0, 1).contiguous()
    return pixels.float().div_(255).sub_(mean).div_(std) if normalised else pixels

  # An epoch after the other; examples are shuffled in a window, as its documentation advises.
  dataset = webdataset.WebDataset(pattern, shardshuffle=False, empty_check=False).repeat().shuffle(256)
  dataset = dataset.decode("pil").to_tuple("jpg", "cls").map_tuple(transformed, int)
  stream = iter(torch.utils.data.DataLoader(dataset, batch_size=BATCH, num_workers=0))

  def run(count: int) -> dict:
    return {"examples": sum(len(next(stream)[0]) for _ in range(count))}

  run(2)
  return run


def torch_text(path: str) -> Any:
  """-> run(batches), those of a DataLoader that reads JSON lines, tokenises and packs them into rows."""
  import torch

  from zoo.data.tokenizers import tokenizer

  torch.set_num_threads(1)
  encoding = tokenizer("gpt2").encoding  # tiktoken's own.

  class Rows(torch.utils.data.IterableDataset):
    def __iter__(self):
      tokens: list[int] = []
      while True:
        with open(path) as file:
          for line in file:
            tokens += [*encoding.encode_ordinary(json.loads(line)["text"]), encoding.eot_token]
            while len(tokens) >= LENGTH:
              yield torch.tensor(tokens[:LENGTH])
              del tokens[:LENGTH]

  stream = iter(torch.utils.data.DataLoader(Rows(), batch_size=8, num_workers=0))

  def run(count: int) -> dict:
    return {"examples": sum(next(stream).numel() for _ in range(count))}

  run(2)
  return run


def grain_images(path: str) -> Any:
  """-> run(batches), those of grain from array_record."""
  import grain

  crop = lambda content, rng: {"image": np.asarray(random_crop(content, rng))}
  dataset = grain.MapDataset.source(grain.sources.ArrayRecordDataSource([path])).seed(0).shuffle().repeat()
  made, steps = dataset.random_map(crop).batch(BATCH), itertools.count()

  def run(count: int) -> dict:
    return {"examples": sum(len(made[next(steps)]["image"]) for _ in range(count))}

  run(2)
  return run


def compare(folder: pathlib.Path, photos: tuple[int, int, int], repeats: int, count: int) -> list[dict]:
  """The rows of the table."""
  import importlib.util

  where = {"data_dir": str(folder), "cache": str(folder / "cache")}
  make = functools.partial(sides.Side, threads=1)
  pictures = {
    "zoo, tars": make(zoo_images, source=f"webdataset:{folder}/{{0..1}}.tar", photos=photos, **where),
    "zoo, Parquet": make(zoo_images, source=f"parquet:{folder}/photos.parquet", photos=photos, **where),
    "zoo, array_record": make(zoo_images, source="tfds:bench_photos", photos=photos, **where),
    "grain, array_record": make(grain_images, path=str(folder / "photos.array_record")),
  }
  texts = {"zoo, JSONL": make(zoo_text, source=f"jsonl:{folder}/texts.jsonl", **where)}
  has_torch = all(importlib.util.find_spec(name) is not None for name in ("torch", "webdataset"))
  if has_torch:
    shards = f"{folder}/{{0..1}}.tar"
    pictures["torch, tars"] = make(torch_images, pattern=shards, normalised=True)
    pictures["torch, tars, uint8"] = make(torch_images, pattern=shards, normalised=False)
    texts["torch, JSONL"] = make(torch_text, path=str(folder / "texts.jsonl"))
  rows = []
  for unit, group in (("image", pictures), ("token", texts)):
    rounds = list(sides.alternate(group, repeats, {"count": count}))
    for name in group:
      each = rounds[0][name][1]["examples"]
      seconds = sorted(one[name][0] / each for one in rounds)[len(rounds) // 2]
      row = {"side": name, f"CPU us per {unit}": 1e6 * seconds, f"{unit}s/s, 2 cores": f"{2 / seconds:,.0f}"}
      for reference in (
        f"torch, {'tars' if unit == 'image' else 'JSONL'}",
        "torch, tars, uint8",
        "grain, array_record",
      ):
        if reference in group and name.startswith("zoo"):
          row[f"/ {reference}"] = sides.compared(rounds, name, reference)["ratio"]
      rows.append(row)
    for side in group.values():
      side.close()
  return rows


def main() -> None:
  """Writes the data, times all sides, prints the table."""
  flags = sides.parser(__doc__)
  flags.add_argument("--photos", default="500x375", help="pixels of a photograph (500x375, ImageNet's average)")
  flags.add_argument("--count", type=int, default=4, help="batches of a repeat (4)")
  flags.add_argument("--repeats", type=int, default=5, help="(5)")
  options = flags.parse_args()
  width, height = map(int, options.photos.split("x"))
  from zoo.data.sources import open_source

  with tempfile.TemporaryDirectory() as name:
    folder, contents = pathlib.Path(name), photographs(256, width, height)
    texts = [record["text"] for record in open_source("tfds:sotu", "train[:20%]")]
    write(folder, contents, [text.decode() if isinstance(text, bytes) else text for text in texts])
    builder(contents)(data_dir=name).download_and_prepare(file_format="array_record")
    rows = compare(folder, (256, width, height), options.repeats, options.count)
  sides.report(f"Data into the step, photographs of {options.photos}", rows, "CPU", 1, options.out)


if __name__ == "__main__":
  main()
