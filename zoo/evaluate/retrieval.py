"""Image-text retrieval, both ways, over a full held-out split."""

import hashlib
import os
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from zoo.data.pipeline import Records
from zoo.errors import UserError
from zoo.evaluate import nearest_pixels, ranking
from zoo.evaluate.artifacts import write_json, write_text
from zoo.evaluate.forward import needs, outputs, records_of
from zoo.evaluate.gallery import draw
from zoo.evaluate.tables import table
from zoo.evaluate.vectors import Vectors
from zoo.objectives.objective import optional_entries
from zoo.preprocessing import as_float, text_options
from zoo.tree import variables

WAYS = ("image_to_text", "text_to_image")


class Gallery(NamedTuple):
  """The distinct images and texts of a split, and their groups."""

  images: np.ndarray  # [images] int: first record of each
  texts: np.ndarray  # [texts] int: row in the vectors of texts
  captions: np.ndarray  # [texts, 2] int: record, and caption within the record
  text_groups: np.ndarray  # [texts] int: group of each
  image_groups: np.ndarray  # [images] int: likewise; equal ones match


def retrieval(
  model: Any,
  *,
  data: Mapping | Any,
  batch_size: int = 64,
  train_data: Mapping | Any | None = None,
  at: Sequence[int] = (1, 5, 10),
  file: str = "retrieval",
) -> Callable:
  """Evaluator: (params, folder=None, step=None) -> {"image_to_text_r1", ..., "pixels/image_to_text_r1", ...}.

  The gallery is the split: its distinct images and texts, each embedded once. Those of the same `group`
  match. Of an image with several captions, each is a query for the image, and any of them
  among the first k is a hit for it: recall as on COCO and Flickr30k (https://arxiv.org/abs/2103.00020, appendix E.1).
  Writes `file`.png (queries with their first five answers), `file`.json and `file`.txt (the table).

  Args:
    model: with the methods encode_image and encode_text, as in CLIP: unit vectors.
    data: section of the pipeline `image_text`, or its records: `image`, `tokens`, `valid`, `group`, and
      `caption(index)`; for images with several captions also `captions_of(index)` and `tokens_of(caption)`.
    batch_size: pairs per batch.
    train_data: the training split. With it the row `pixels` has the recall of the nearest training drawing in the
      same gallery; it is undefined and left out if a concept of the gallery has no training drawing.
    at: the values of k.
    file: name of the files, without extension.

  Raises:
    UserError: the model does not embed images and texts, or takes images of any size and there is train_data.
  """
  needs(model, "retrieval", "encode_image", "encode_text")
  records = records_of(data, model, "retrieval", "image", "tokens")
  train_records = None if train_data is None else records_of(train_data, model, "retrieval", "image", "tokens")
  if train_records is not None and isinstance(train_records[0]["image"], Mapping):
    raise UserError(
      "retrieval compares pixels of images of one size, but this model takes any size. Leave out train_data."
    )

  @jax.jit
  def embed(params: Any, batch: dict) -> dict:
    image = model.apply(variables(params), as_float(batch["image"], model), method="encode_image")
    return {"image": image, **embed_text(params, batch)}

  @jax.jit
  def embed_text(params: Any, batch: dict) -> dict:
    options = text_options(model, optional_entries(batch, "valid"))
    return {"text": model.apply(variables(params), batch["tokens"], **options, method="encode_text")}

  cached: dict[str, Any] = {}  # independent of the parameters: the gallery, and the rows of the baseline and of chance

  def baselines(gallery: Gallery, pixels: Sequence[np.ndarray]) -> dict[str, float]:
    rows: dict[str, float] = {}
    if train_records is not None:
      scores = nearest_pixels.scores(np.stack(pixels), gallery.text_groups, train_records)
      right = gallery.image_groups[:, None] == gallery.text_groups[None]
      rows |= {} if scores is None else both_ways(scores, right, at, "pixels/")
    sides = (gallery.image_groups, gallery.text_groups)
    for way, (queries, answers) in zip(WAYS, (sides, sides[::-1]), strict=True):
      groups, counts = np.unique(answers, return_counts=True)
      right = counts[np.searchsorted(groups, queries)]
      rows |= {f"chance/{way}_r{k}": ranking.chance_of_counts(right, len(answers), k) for k in at}
    return rows

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    vectors, builder = {"image": Vectors(), "text": Vectors()}, GalleryBuilder(keep_pixels=train_records is not None)
    for embedded, batch in outputs(embed, params, records, batch_size, model):
      for side, rows_of_side in embedded.items():
        vectors[side].append(rows_of_side)
      if not cached:
        builder.add(batch)
    if not cached:
      further = builder.further(records)
      gallery = builder.gallery()
      cached.update(gallery=gallery, further=further, rows=baselines(gallery, builder.pixels))
    gallery, rows = cached["gallery"], cached["rows"]
    if len(cached["further"]):
      for embedded, _ in outputs(embed_text, params, cached["further"], batch_size, model):
        vectors["text"].append(embedded["text"])
    image, text = vectors["image"].rows(gallery.images), vectors["text"].rows(gallery.texts)
    sides = [(image, gallery.image_groups), (text, gallery.text_groups)]
    ranks = {
      way: ranking.ranks_of_vectors(queries, answers, query_groups, answer_groups)
      for way, ((queries, query_groups), (answers, answer_groups)) in zip(WAYS, (sides, sides[::-1]), strict=True)
    }
    metrics = {f"{way}_r{k}": ranking.recall(ranks[way], k) for way in WAYS for k in at} | rows
    if folder is not None and jax.process_index() == 0:
      undefined = train_records is not None and not any(key.startswith("pixels/") for key in metrics)
      sizes = {"images": len(gallery.images), "texts": len(gallery.texts)}
      where = ", ".join([*([] if step is None else [f"step {step}"]), *(f"{n} {kind}" for kind, n in sizes.items())])
      write_json(folder, f"{file}.json", {"step": step, **sizes, "pixels_undefined": undefined, **metrics})
      write_text(folder, f"{file}.txt", f"{table(metrics, file)}\n{where}\n{legend(metrics, undefined)}")
      draw(folder, f"{file}.png", records, gallery, sides, list(ranks.values()), metrics, f"{file}, {where}")
    return metrics

  return evaluate


def both_ways(scores: np.ndarray, right: np.ndarray, at: Sequence[int], row: str = "") -> dict[str, float]:
  """Recalls of `scores` [images, texts] along its rows and along its columns."""
  ways = zip(WAYS, ((scores, right), (scores.T, right.T)), strict=True)
  ranks = {way: ranking.ranks(*pair) for way, pair in ways}
  return {f"{row}{way}_r{k}": ranking.recall(ranks[way], k) for way in WAYS for k in at}


def legend(metrics: Mapping[str, float], undefined: bool) -> str:
  """Explains the rows of a table of `metrics`; `undefined`: why the requested row of pixels is missing."""
  rows = {row for key in metrics for row, slash, _ in [key.partition("/")] if slash}
  lines = [
    "rK: the fraction of queries with a right answer among the first K. Among equal scores wrong answers come first.",
    "Right is every answer of the query's group, which is the concept that the data name, else the pair alone.",
  ]
  if "pixels" in rows:
    lines.append("pixels: the nearest training image, by squared distance of pixels.")
  elif undefined:
    lines.append("No row pixels: it is undefined here, as the gallery has concepts without a training image.")
  return "\n".join([*lines, *(["chance: a ranking drawn at random."] if "chance" in rows else [])])


class GalleryBuilder:
  """Collects the gallery from batches; equal images and equal texts occur once.

  All captions of one image are in it, including equal ones. Of each image and text a digest and some numbers are kept.
  """

  def __init__(self, keep_pixels: bool):
    self.keep_pixels = keep_pixels
    self.pixels: list[np.ndarray] = []
    self.kept: set[bytes] = set()
    self.groups = array("q")
    self.images, self.texts = bytearray(), bytearray()  # Digests.
    self.captions = array("q")  # Record and caption of each further text.

  def add(self, batch: Mapping[str, np.ndarray]) -> None:
    """Adds the rows of a batch: image [batch, height, width, 3], tokens int [batch, length], group int [batch]."""
    for row in range(len(batch["tokens"])):
      group = int(batch["group"][row]) if "group" in batch else len(self.groups)
      pixels = jax.tree.map(lambda x, row=row: x[row], batch["image"])
      digest = digest_of(group, *(x.tobytes() for x in jax.tree.leaves(pixels)))
      if self.keep_pixels and digest not in self.kept:
        self.pixels.append(pixels)
        self.kept.add(digest)
      self.images += digest
      self.texts += digest_of(group, batch["tokens"][row].tobytes())
      self.groups.append(group)

  def further(self, records: Any) -> "Texts":
    """All further captions of all records, which are added too: their rows come after those of `add`."""
    for record, group in enumerate(self.groups if hasattr(records, "captions_of") else ()):
      captions = records.captions_of(record)
      times = Counter[bytes]()
      for number, caption in enumerate(captions):
        tokens = records.tokens_of(caption)["tokens"].tobytes()
        if number:
          # The same once more is another text, as often as it stands there.
          self.texts += digest_of(group, tokens, *([b"%d" % times[tokens]] if times[tokens] else []))
          self.captions.extend((record, number))
        times[tokens] += 1
    return Texts(records, np.array(self.captions, np.int64).reshape(-1, 2))

  def gallery(self) -> Gallery:
    """All that was taken in."""
    groups = np.array(self.groups, np.int64)
    first = np.stack([np.arange(len(groups)), np.zeros(len(groups), np.int64)], axis=1)
    captions = np.concatenate([first, np.array(self.captions, np.int64).reshape(-1, 2)])
    images, texts = (first_of_each(digests) for digests in (self.images, self.texts))
    captions = captions[texts]
    return Gallery(images, texts, captions, groups[captions[:, 0]], groups[images])


def digest_of(group: int, *parts: bytes) -> bytes:
  """16 bytes that differ wherever the group or one of the parts does."""
  digest = hashlib.blake2b(b"%d" % group, digest_size=16)
  for part in parts:
    digest.update(b"|%d|" % len(part) + part)
  return digest.digest()


def first_of_each(digests: bytearray) -> np.ndarray:
  """int, rising: where each of the distinct digests stands first."""
  return np.sort(np.unique(np.frombuffer(digests, "V16"), return_index=True)[1])


class Texts(Records):
  """Captions of records as records, tokenized when they are asked for; `captions` int [n, 2]: record and caption."""

  def __init__(self, records: Any, captions: np.ndarray):
    self.records, self.captions, self.info = records, captions, {}
    self._last: tuple[int, list] = (-1, [])

  def __len__(self) -> int:
    return len(self.captions)

  def example(self, index: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
    record, number = self.captions[index].tolist()
    last, captions = self._last
    if last != record:  # The captions of a record come one after the other.
      captions = self.records.captions_of(record)
      self._last = record, captions
    return self.records.tokens_of(captions[number])
