"""Several pairs of texts in one row, so that little is padded (https://arxiv.org/abs/1910.10683, section 3.1.2).

Which pairs share a row is settled once, from their lengths alone: a row is an example like any other, epochs shuffle
rows, and a batch stays a function of seed and step.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.data.padding import pair
from zoo.data.pipeline import Example, Records
from zoo.errors import UserError
from zoo.named import call

WINDOW = 4096  # Pairs that are fitted together: the time it takes grows with its square.


def packed(
  data: Mapping[str, Any], *, max_length: int = 512, target_length: int | None = None, seed: int = 0
) -> "Packed":
  """Pairs of another pipeline side by side, as many as fit.

      {"name": "packed", "max_length": 256, "data": {"name": "text_pairs", "source": ..., "max_length": 96}}

  Args:
    data: section of a pipeline whose records know their lengths: text_pairs.
    max_length, target_length: tokens of a row of sources and of a row of targets; the second is the first if None. At
      least those of `data`. A model with learned or tabled positions must have as many.
    seed: of the order in which pairs are tried. Another one puts others together.

  Each example: `tokens` int32 [max_length], `valid` bool [max_length], `segment_ids` int32 [max_length], 1 on the first
  pair of the row, 2 on the second ..., 0 on padding; `target_tokens`, `target_valid`, `target_segment_ids` likewise.
  T5, BART, Marian and the Transformer let no token see another pair's, and count places anew in each. `info`: that of
  the data with the lengths of rows; pairs: how many there are; useful: the part of all rows that is no padding, 0.98
  of the 25,550 verses of configs/transformer_rewrite.py in rows of 128 and 128, where batches of 32 in four buckets
  reach 0.69.
  """
  records = call("data", data) if isinstance(data, Mapping) else data
  if getattr(records, "sizes", None) is None:
    raise UserError("packed needs pairs of texts whose lengths are known before. Use the pipeline text_pairs.")
  return Packed(records, (max_length, max_length if target_length is None else target_length), seed)


class Packed(Records):
  """See `packed`."""

  def __init__(self, records: Records, lengths: tuple[int, int], seed: int):
    assert records.sizes is not None
    self.records, self.lengths = records, lengths
    sizes = np.stack(records.sizes, axis=1)
    most = sizes.max(axis=0)
    if (most > lengths).any():
      raise UserError(
        f"A pair has {most[0]} and {most[1]} tokens, a row {lengths[0]} and {lengths[1]}. Raise max_length and "
        "target_length of packed, or lower those of its data."
      )
    order = np.random.default_rng(seed).permutation(len(records))
    windows = (order[first : first + WINDOW] for first in range(0, len(order), WINDOW))
    self.rows = [row for window in windows for row in fitted(window, sizes, lengths)]
    self.info = {
      **records.info,
      "max_length": lengths[0],
      "target_length": lengths[1],
      "pairs": len(records),
      "useful": float(sizes.sum() / (len(self.rows) * sum(lengths))),
    }

  def __len__(self) -> int:
    return len(self.rows)

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    examples = [self.records.example(record, rng) for record in self.rows[index]]
    parts = [[example[f"{side}tokens"][example[f"{side}valid"]] for example in examples] for side in ("", "target_")]
    found = pair(*map(np.concatenate, parts), *self.lengths, self.info["tokenizer"].pad or 0)
    for side, rows, length in zip(("", "target_"), parts, self.lengths):
      numbers = np.repeat(np.arange(1, len(rows) + 1, dtype=np.int32), [len(row) for row in rows])
      found[f"{side}segment_ids"] = np.pad(numbers, (0, length - len(numbers)))
    return found


def fitted(records: np.ndarray, sizes: np.ndarray, lengths: tuple[int, int]) -> list[list[int]]:
  """Records in rows, the largest first, each in the first row that has room for both of its texts.

  Args:
    records: int [n], of which records.
    sizes: int [all records, 2], tokens of source and target.
    lengths: of a row.
  """
  part = sizes / lengths
  rows: list[list[int]] = []
  room = np.empty((len(records), 2), int)
  for record in records[np.argsort(-part[records].max(axis=1), kind="stable")].tolist():
    fits = (room[: len(rows)] >= sizes[record]).all(axis=1)
    row = int(fits.argmax()) if fits.any() else len(rows)
    if row == len(rows):
      rows.append([])
      room[row] = lengths
    rows[row].append(record)
    room[row] -= sizes[record]
  return rows
