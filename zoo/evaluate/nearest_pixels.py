"""Retrieval without learning: a drawing is named after the training drawings that look most like it, pixel by pixel."""

from typing import Any

import numpy as np

ROWS = 256  # gallery images compared at a time: bounds the memory


def scores(records: Any, images: np.ndarray, texts: np.ndarray, train_records: Any) -> np.ndarray | None:
  """How near each image of the gallery is to the training drawings of each text's concept.

      score(image, text) = - min over training drawings of the text's group of sum((image - drawing)^2)

  Args:
    records: of the gallery; `image` uint8, `group`.
    images, texts: [images], [texts] int, places in the records.
    train_records: whose drawings are known; `image` of the same size, `group` numbered alike.

  Returns:
    [images, texts] float64, exact (squares of bytes add up to whole numbers); None if a text's group has no training
    drawing.
  """
  known, drawings = _drawings(train_records, range(len(train_records)))
  wanted = np.array([int(records[index]["group"]) for index in texts])
  if not np.isin(wanted, known).all():
    return None
  order = np.argsort(known, kind="stable")
  groups, starts = np.unique(known[order], return_index=True)
  drawings = drawings[order]
  lengths = np.sum(drawings**2, axis=1)
  parts = []
  for first in range(0, len(images), ROWS):
    _, queries = _drawings(records, images[first : first + ROWS])
    distances = np.sum(queries**2, axis=1)[:, None] + lengths[None] - 2 * queries @ drawings.T
    parts.append(np.minimum.reduceat(distances, starts, axis=1))
  return -np.concatenate(parts)[:, np.searchsorted(groups, wanted)]


def _drawings(records: Any, indices: Any) -> tuple[np.ndarray, np.ndarray]:
  """Groups [n] and pixels [n, height * width * channels] of some records."""
  examples = [records[int(index)] for index in indices]
  pixels = np.stack([example["image"].reshape(-1) for example in examples]).astype(np.float64)
  return np.array([int(example["group"]) for example in examples]), pixels
