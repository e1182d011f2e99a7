"""Packed sequences: several documents or pairs per example (https://arxiv.org/abs/1910.10683, section 3.1.2).

Documents are assigned to examples once, from their lengths alone; epochs shuffle packed examples, and a batch
stays a function of seed and step.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.config import registry
from zoo.data.padding import check_row
from zoo.data.pipeline import Example, Records
from zoo.errors import UserError
from zoo.progress import progress

WINDOW = 4096  # Documents packed together: packing time grows with its square.
SIDES = ("", "target_")  # Prefixes of field names of the source and of the target.


def packed(
  data: Mapping[str, Any],
  *,
  max_length: int = 512,
  target_length: int | None = None,
  seed: int = 0,
  bad_records: str | Mapping | None = None,
) -> "Packed":
  """Packs as many texts of another pipeline into each example as fit.

      {"name": "packed", "max_length": 256, "data": {"name": "text_pairs", "source": ..., "max_length": 96}}
      {"name": "packed", "max_length": 512, "data": {"name": "documents", "source": "tfds:sotu", "unit": "paragraph"}}

  Args:
    data: section of a pipeline whose records know their lengths: text_pairs, documents.
    max_length, target_length: tokens of a row of texts, or of sources and of a row of targets; the second is the first
      if None. At least those of `data`. A model with a table of positions needs as many.
    seed: of the order in which texts are packed.
    bad_records: for `data`, if it has none.

  Each example: `tokens` int32 [max_length], `valid` bool [max_length], `segment_ids` int32 [max_length], 1 on the first
  document of the sequence, 2 on the second ..., 0 on padding; for pairs `target_tokens`, `target_valid`,
  `target_segment_ids` likewise; other fields of `data` with one value per token. Models mask other segments and restart
  positions in each; objectives predict nothing across their boundaries. `info`: that of the data with lengths of rows;
  pairs or rows: their number; useful: the share of all rows that is not padding. It is 0.98 for the 25,550 verses of
  configs/transformer_rewrite.py in rows of 128 and 128, where batches of 32 in four buckets reach 0.69.

  Raises:
    UserError: the lengths of the pipeline's texts are unknown.
  """
  shared = {} if bad_records is None else {"bad_records": bad_records}
  records = registry.build("data", {**shared, **data}) if isinstance(data, Mapping) else data
  if getattr(records, "sizes", None) is None:
    raise UserError("packed needs data of known lengths. Use the pipeline documents or text_pairs.")
  lengths = (max_length, max_length if target_length is None else target_length)[: len(records.sizes)]
  check_row(**dict(zip(("max_length", "target_length"), lengths)))
  return Packed(records, lengths, seed)


class Packed(Records):
  """See `packed`."""

  def __init__(self, records: Records, lengths: tuple[int, ...], seed: int):
    assert records.sizes is not None
    self.records, self.lengths, self.bad, self.policy = records, lengths, records.bad, records.policy
    sizes = np.stack(records.sizes, axis=1)
    longest = sizes.max(axis=0)
    if (longest > lengths).any():
      actual, rows = (" and ".join(map(str, x)) for x in (longest, lengths))
      names = "max_length and target_length" if len(lengths) > 1 else "max_length"
      raise UserError(
        f"{'A pair' if len(lengths) > 1 else 'A text'} has {actual} tokens, a packed sequence {rows}. Raise {names} of "
        f"packed, or lower {'those' if len(lengths) > 1 else 'that'} of its data."
      )
    order = np.random.default_rng(seed).permutation(len(records))
    windows = (order[first : first + WINDOW] for first in range(0, len(order), WINDOW))
    self.rows: list[list[int]] = []
    with progress(f"packing {records.name}", len(records), "texts") as advance:
      for window in windows:
        self.rows += fitted(window, sizes, lengths)
        advance(len(window))
    pair = {"target_length": lengths[1], "pairs": len(records)} if len(lengths) > 1 else {"rows": len(self.rows)}
    useful = float(sizes.sum() / (len(self.rows) * sum(lengths)))
    self.info = {**records.info, "max_length": lengths[0], **pair, "useful": useful}
    pad = getattr(self.info.get("tokenizer"), "pad", None) or 0
    self.padding = {"tokens": pad, "target_tokens": pad, "special": True}

  def __len__(self) -> int:
    return len(self.rows)

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    examples = [self.records.example(record, rng) for record in self.rows[index]]
    packed_example = {}
    for side, length in zip(SIDES, self.lengths):
      valid = [example[f"{side}valid"] for example in examples]
      for name in examples[0]:
        if name.startswith(SIDES[1]) == (side == SIDES[1]):
          values = np.concatenate([example[name][real] for example, real in zip(examples, valid, strict=True)])
          padding = self.padding.get(name, 0)
          packed_example[name] = np.pad(values, (0, length - len(values)), constant_values=padding)
      counts = [int(real.sum()) for real in valid]
      segment_ids = np.repeat(np.arange(1, len(counts) + 1, dtype=np.int32), counts)
      packed_example[f"{side}segment_ids"] = np.pad(segment_ids, (0, length - len(segment_ids)))
    return packed_example


def fitted(records: np.ndarray, sizes: np.ndarray, lengths: tuple[int, ...]) -> list[list[int]]:
  """First-fit-decreasing bin packing of records into rows.

  Args:
    records: int [n], indices of the records to pack.
    sizes: int [all records, 1 or 2], tokens of the text, or of source and target.
    lengths: of a row, of source and target.
  """
  part = sizes / lengths
  rows: list[list[int]] = []
  free = np.empty((len(records), len(lengths)), int)
  for record in records[np.argsort(-part[records].max(axis=1), kind="stable")].tolist():
    fits = (free[: len(rows)] >= sizes[record]).all(axis=1)
    row = int(fits.argmax()) if fits.any() else len(rows)
    if row == len(rows):
      rows.append([])
      free[row] = lengths
    rows[row].append(record)
    free[row] -= sizes[record]
  return rows
