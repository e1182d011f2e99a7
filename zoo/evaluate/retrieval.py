"""Finding the text that belongs to an image, and the image that belongs to a text, in the whole held-out split."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from zoo.evaluate import nearest_pixels, ranking
from zoo.evaluate.artifacts import write_json, write_text
from zoo.evaluate.forward import gather, needs, records_of
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

  @functools.cache
  def fixed() -> tuple[Gallery, dict[str, float]]:
    """What no training changes: the gallery and the rows `pixels` and `chance`."""
    gallery, rows = gallery_of(records), {}
    if train_records is not None:
      scores = nearest_pixels.scores(records, gallery.images, gallery.texts, train_records)
      rows |= {} if scores is None else both_ways(scores, gallery.right, at, "pixels/")
    for way, right in zip(WAYS, (gallery.right, gallery.right.T), strict=True):
      rows |= {f"chance/{way}_r{k}": ranking.chance(right, k) for k in at}
    return gallery, rows

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    gallery, rows = fixed()
    found = gather(embed, params, records, batch_size)
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


def gallery_of(records: Any) -> Gallery:
  """Images that are equal pixel by pixel stand in the gallery once, and so do texts that are equal token by token."""
  images, texts, groups = {}, {}, []
  for index in range(len(records)):
    example = records[index]
    group = int(example.get("group", index))
    images.setdefault((group, example["image"].tobytes()), index)
    texts.setdefault((group, example["tokens"].tobytes()), index)
    groups.append(group)
  group = np.array(groups)
  image, text = (np.fromiter(found.values(), np.int64) for found in (images, texts))
  return Gallery(image, text, group[image][:, None] == group[text][None])
