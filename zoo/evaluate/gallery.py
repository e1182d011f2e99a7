"""The retrieval figure: queries with their top five answers, in both directions, successes and failures."""

import io
import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.evaluate import ranking
from zoo.evaluate.artifacts import write_bytes

TOP = 5
GOOD, CLOSE, BAD = 4, 2, 2  # queries of each kind: rank 1, ranks 2 to 5, not found
GREEN, RED, GREY = "#2a9d3a", "#d03a2f", "#888888"
WIDTH, ROW, HEAD, FOOT = 17.0, 1.25, 1.1, 1.0  # inches

KINDS = f"""Each side shows {GOOD} queries that find a right answer first, {CLOSE} that find one later among the five,
{BAD} that find none; drawn at random, as far as there are. Green frame: right. Red: wrong."""


def draw(
  folder: str | os.PathLike,
  name: str,
  records: Any,
  gallery: Any,
  vectors: Sequence[tuple[Any, np.ndarray]],
  ranks: Sequence[np.ndarray],
  metrics: Mapping[str, float],
  title: str,
) -> None:
  """Writes `folder/name`, a PNG.

  Args:
    folder, name: the output file.
    records: with `image` and `caption(index, number)`.
    gallery: record indices of the images and texts, `images`, `captions`.
    vectors: for images and for texts: float [n, dim], and groups int [n]; equal ones belong together.
    ranks: int [images], int [texts]: ranks of the best right answers.
    metrics: for the caption: `image_to_text_r1` ... and those of the rows `pixels` and `chance`.
    title: of the figure.
  """
  # Not pyplot: it would keep the figure, and choose a backend for the whole process.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  image_at = lambda index: assembled(records[int(gallery.images[index])]["image"])
  text_at = lambda index: records.caption(*map(int, gallery.captions[index]))
  sides = [
    ("Image to text: the five nearest texts of an image", *vectors, image_at, text_at),
    ("Text to image: the five nearest images of a text", *vectors[::-1], text_at, image_at),
  ]
  chosen = [example_queries(of_side) for of_side in ranks]
  rows = max(map(len, chosen))
  height = HEAD + ROW * rows + FOOT
  figure = Figure(figsize=(WIDTH, height), dpi=100, facecolor="white")
  FigureCanvasAgg(figure)
  figure.text(0.5, 1 - 0.35 / height, title, fontsize=15, ha="center")
  edges = {"left": 0.01, "right": 0.99, "top": 1 - HEAD / height, "bottom": FOOT / height}
  grid = figure.add_gridspec(rows, 2 * (1 + TOP) + 1, **edges, wspace=0.08, hspace=0.2)
  for side, ((heading, queries, answered, query_at, answer_at), queried) in enumerate(zip(sides, chosen, strict=True)):
    (asking, groups), (answers, answer_groups) = queries, answered
    first = side * (TOP + 2)  # one column stays empty between the sides
    figure.text(0.01 + first / (2 * TOP + 3), 1 - 0.85 / height, heading, fontsize=12, weight="bold")
    for row, query in enumerate(queried):
      draw_cell(figure.add_subplot(grid[row, first]), query_at(query), GREY, 1.0)
      right = answer_groups == groups[query]
      for column, answer in enumerate(top_indices(ranking.scores_of(asking[query], answers), right)):
        colour = GREEN if right[answer] else RED
        draw_cell(figure.add_subplot(grid[row, first + 1 + column]), answer_at(answer), colour, 3.0)
  lines = [
    f"{direction.replace('_', ' ')}: {figures(metrics, direction)}" for direction in ("image_to_text", "text_to_image")
  ]
  caption = "\n".join([*lines, KINDS])
  figure.text(0.01, 0.1 / height, caption, fontsize=10, va="bottom", linespacing=1.3)
  png = io.BytesIO()
  figure.savefig(png, format="png")
  write_bytes(folder, name, png.getvalue())


def assembled(image: Any) -> np.ndarray:
  """An image [height, width, 3], reassembled if it comes as patches [patches, side * side * 3] with their grid."""
  if not isinstance(image, Mapping):
    return image
  rows, columns = image["grid"]
  side = math.isqrt(image["patches"].shape[-1] // 3)
  patches = image["patches"][: rows * columns].reshape(rows, columns, side, side, 3)
  return patches.swapaxes(1, 2).reshape(rows * side, columns * side, 3)


def example_queries(ranks: np.ndarray) -> np.ndarray:
  """A deterministic sample of queries of each kind: int [queries] ranks, from 1 -> int [chosen] indices of queries."""
  rng = np.random.default_rng(0)
  kinds = (ranks == 1, (ranks > 1) & (ranks <= TOP), ranks > TOP)
  chosen = [
    rng.permutation(np.flatnonzero(kind))[:count] for kind, count in zip(kinds, (GOOD, CLOSE, BAD), strict=True)
  ]
  return np.concatenate(chosen)


def top_indices(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
  """Indices of the top scores, highest first; among ties wrong answers come first, as in `ranking.ranks`.

  scores: float [answers]. right: bool [answers]. Returns int [up to TOP].

  >>> top_indices(np.array([0.1, 0.9, 0.9]), np.array([False, True, False])).tolist()
  [2, 1, 0]
  """
  return np.lexsort((right, -scores))[:TOP]


def draw_cell(axes: Any, content: Any, colour: str, width: float) -> None:
  """Draws an image or a text in a coloured frame."""
  axes.set(xticks=[], yticks=[])
  for spine in axes.spines.values():
    spine.set(color=colour, linewidth=width)
  if isinstance(content, str):
    text = "\n".join(textwrap.wrap(content, 13)[:6])
    axes.set_box_aspect(1)
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=8, transform=axes.transAxes, parse_math=False)
    return
  image = content if content.dtype == np.uint8 else np.clip(content / 2 + 0.5, 0, 1)
  axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", interpolation="nearest")


def figures(metrics: Mapping[str, float], way: str) -> str:
  """Formats metrics: `R@1 .079, R@10 .370 (pixels R@1 .120, R@10 .274; chance R@1 .001, R@10 .006)`"""
  at = [key.removeprefix(f"{way}_r") for key in metrics if key.startswith(f"{way}_r")]

  def row(name: str) -> str:
    return ", ".join(f"R@{k} {metrics[f'{name}{way}_r{k}']:.3f}" for k in at)

  baselines = [f"{name} {row(f'{name}/')}" for name in ("pixels", "chance") if f"{name}/{way}_r{at[0]}" in metrics]
  return row("") + (f" ({'; '.join(baselines)})" if baselines else "")
