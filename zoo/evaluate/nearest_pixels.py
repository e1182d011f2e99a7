"""Nearest-neighbour retrieval baseline in pixel space."""

from typing import Any

import numpy as np

ROWS = 256  # gallery images compared at a time, to bound memory


def scores(images: np.ndarray, text_groups: np.ndarray, train_records: Any) -> np.ndarray | None:
  """Negative squared distance of each gallery image to the nearest training drawing of each text's concept.

      score(image, text) = - min over training drawings of the text's group of sum((image - drawing)^2)

  Args:
    images: of the gallery, uint8 [images, height, width, channels].
    text_groups: [texts] int, the group of each text.
    train_records: the training drawings: `image` of the same size, `group` with the same ids.

  Returns:
    [images, texts] float64, exact (sums of squared bytes are integers); None if a text's group has no training
    drawing.
  """
  examples = [train_records[index] for index in range(len(train_records))]
  train_groups = np.array([int(example["group"]) for example in examples])
  if not np.isin(text_groups, train_groups).all():
    return None
  order = np.argsort(train_groups, kind="stable")
  groups, starts = np.unique(train_groups[order], return_index=True)
  drawings = np.stack([examples[index]["image"] for index in order]).reshape(len(order), -1).astype(np.float64)
  lengths = np.sum(drawings**2, axis=1)
  parts = []
  for first in range(0, len(images), ROWS):
    queries = images[first : first + ROWS].reshape(-1, drawings.shape[1]).astype(np.float64)
    distances = np.sum(queries**2, axis=1)[:, None] + lengths[None] - 2 * queries @ drawings.T
    parts.append(np.minimum.reduceat(distances, starts, axis=1))
  return -np.concatenate(parts)[:, np.searchsorted(groups, text_groups)]
