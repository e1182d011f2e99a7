"""Finding the text that belongs to an image, and the image that belongs to a text, in the whole held-out split."""

import functools
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from zoo.evaluate import nearest_pixels, ranking
from zoo.evaluate.artifacts import write_json, write_text
from zoo.evaluate.forward import needs, outputs, records_of
from zoo.evaluate.gallery import draw
from zoo.evaluate.tables import table
from zoo.objectives.contrastive import as_float

WAYS = ("image_to_text", "text_to_image")
NOTE = """r5: the share of queries with a right answer among the first 5. Ties count against; equal groups are right.
pixels: the nearest training drawing, by squared distance of pixels{undefined}.
chance: a ranking drawn at random."""


class Gallery(NamedTuple):
  """The distinct images and texts of a split, and which belong together."""

  images: np.ndarray  # [images] int: where each stands first in the records
  texts: np.ndarray  # [texts] int
  text_groups: np.ndarray  # [texts] int: what each is about
  right: np.ndarray  # [images, texts] bool


def retrieval(
  model: Any,
  *,
  data: Mapping | Any,
  batch_size: int = 64,
  train_data: Mapping | Any | None = None,
  at: Sequence[int] = (1, 5, 10),
  file: str = "retrieval",
) -> Callable:
  """-> evaluate(params, folder=None, step=None) -> {"image_to_text_r1", ..., "pixels/image_to_text_r1", ...}.

  The gallery is the split: its distinct images and its distinct texts, each embedded once. What is of the same `group`
  belongs together. Writes `file`.png (queries with their first five answers), `file`.json and `file`.txt (the table).

  Args:
    model: with the methods encode_image and encode_text, as CLIP has them: unit vectors.
    data: section of the pipeline `image_text`, or its records: `image`, `tokens`, `valid`, `group`, and
      `caption(index)`.
    batch_size: pairs at a time.
    train_data: the training split. With it the row `pixels` tells what the nearest training drawing finds in the same
      gallery; it is left out where a concept of the gallery has no training drawing, for then it is not defined.
    at: the numbers of first answers that count.
    file: name of the files, without ending.
  """
  needs(model, "retrieval", "encode_image", "encode_text")
  records = records_of(data)
  train_records = None if train_data is None else records_of(train_data)

  @jax.jit
  def embed(params: Any, batch: dict) -> dict:
    apply = functools.partial(model.apply, {"params": params})
    image = apply(as_float(batch["image"]), method="encode_image")
    return {"image": image, "text": apply(batch["tokens"], valid=batch.get("valid"), method="encode_text")}

  known: dict[str, Any] = {}  # what no training changes: the gallery, and the rows of the baseline and of chance

  def baselines(gallery: Gallery, pixels: Sequence[np.ndarray]) -> dict[str, float]:
    rows: dict[str, float] = {}
    if train_records is not None:
      scores = nearest_pixels.scores(np.stack(pixels), gallery.text_groups, train_records)
      rows |= {} if scores is None else both_ways(scores, gallery.right, at, "pixels/")
    for way, right in zip(WAYS, (gallery.right, gallery.right.T), strict=True):
      rows |= {f"chance/{way}_r{k}": ranking.chance(right, k) for k in at}
    return rows

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    vectors, seen = [], Seen(keep_pixels=train_records is not None)
    for found, batch in outputs(embed, params, records, batch_size):
      vectors.append(found)
      if not known:
        seen.add(batch)
    if not known:
      gallery = seen.gallery()
      known.update(gallery=gallery, rows=baselines(gallery, seen.pixels))
    gallery, rows = known["gallery"], known["rows"]
    found = {key: np.concatenate([part[key] for part in vectors]) for key in ("image", "text")}
    image, text = found["image"][gallery.images], found["text"][gallery.texts]
    scores = image.astype(np.float32) @ text.astype(np.float32).T
    metrics = both_ways(scores, gallery.right, at) | rows
    if folder is not None and jax.process_index() == 0:
      undefined = train_records is not None and not any(key.startswith("pixels/") for key in metrics)
      note = NOTE.format(undefined=" - undefined here: concepts without a training drawing" if undefined else "")
      sizes = {"images": len(gallery.images), "texts": len(gallery.texts)}
      where = ", ".join([*([] if step is None else [f"step {step}"]), *(f"{n} {kind}" for kind, n in sizes.items())])
      write_json(folder, f"{file}.json", {"step": step, **sizes, "pixels_undefined": undefined, **metrics})
      write_text(folder, f"{file}.txt", f"{table(metrics, file)}\n{where}\n{note}")
      draw(folder, f"{file}.png", records, gallery, scores, metrics, f"{file}, {where}")
    return metrics

  return evaluate


def both_ways(scores: np.ndarray, right: np.ndarray, at: Sequence[int], row: str = "") -> dict[str, float]:
  """Recalls of `scores` [images, texts] read along its rows and along its columns."""
  ways = zip(WAYS, ((scores, right), (scores.T, right.T)), strict=True)
  places = {way: ranking.ranks(*pair) for way, pair in ways}
  return {f"{row}{way}_r{k}": ranking.recall(places[way], k) for way in WAYS for k in at}


class Seen:
  """Gathers the gallery from batches: images that are equal pixel by pixel stand in it once, texts token by token."""

  def __init__(self, keep_pixels: bool):
    self.keep_pixels = keep_pixels
    self.pixels: list[np.ndarray] = []
    self.images: dict[tuple, int] = {}
    self.texts: dict[tuple, int] = {}
    self.count = 0

  def add(self, batch: Mapping[str, np.ndarray]) -> None:
    """Takes in the next rows."""
    for row in range(len(batch["image"])):
      group = int(batch["group"][row]) if "group" in batch else self.count
      image = (group, hashlib.blake2b(batch["image"][row].tobytes(), digest_size=16).digest())
      if self.keep_pixels and image not in self.images:
        self.pixels.append(batch["image"][row])
      self.images.setdefault(image, self.count)
      self.texts.setdefault((group, batch["tokens"][row].tobytes()), self.count)
      self.count += 1

  def gallery(self) -> Gallery:
    """All that was taken in."""
    images, texts = (np.array(list(found.values())) for found in (self.images, self.texts))
    image_groups, text_groups = (np.array([group for group, _ in found]) for found in (self.images, self.texts))
    return Gallery(images, texts, text_groups, image_groups[:, None] == text_groups[None])
