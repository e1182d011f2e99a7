"""A recording in windows that overlap, each as long as the model takes at most."""

from typing import NamedTuple

from zoo.errors import UserError


class Window(NamedTuple):
  """A part of a recording; all in samples.

  Attributes:
    start: where it begins.
    length: how long it is.
    left, right: what the neighbours are expected to have too; 0 at the ends of the recording.
    is_last: whether the recording ends with it.
  """

  start: int
  length: int
  left: int
  right: int
  is_last: bool

  @property
  def end(self) -> int:
    return self.start + self.length


def windows(samples: int, length: int, overlap: int) -> list[Window]:
  """The windows of a recording.

  Each has `overlap` samples at either end that its neighbour is expected to have written down too, so that a word which
  a border cuts is whole in one of them: neighbours share 2 * overlap samples. So transformers' pipeline cuts with
  chunk_length_s and stride_length_s.

  Args:
    samples: of the recording, at least 1.
    length: of a window.
    overlap: less than half of it.

  Raises:
    UserError: the overlap leaves nothing.

  >>> [tuple(window)[:4] for window in windows(70, length=30, overlap=5)]
  [(0, 30, 0, 5), (20, 30, 5, 5), (40, 30, 5, 0)]
  """
  if not 0 <= 2 * overlap < length:
    raise UserError(f"Windows of {length} samples overlap by {overlap} at either end. Make it less than half of them.")
  step, parts = length - 2 * overlap, []
  for start in range(0, samples, step):
    is_last = start + length >= samples
    parts.append(
      Window(start, min(length, samples - start), overlap if start else 0, 0 if is_last else overlap, is_last)
    )
    if is_last:
      break
  return parts
