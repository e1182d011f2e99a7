"""Source-target pairs of token sequences, and length-bucketed batches of them with little padding.

A program is compiled for every shape, so there are few lengths: a batch has the smallest bucket length that holds all
of its examples. Examples of one bucket are batched together: those of several consecutive batches are sorted by bucket,
cut into batches, and the batches shuffled. All of this is a function of the seed and the batch's index, the same on
every host.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.errors import UserError
from zoo.hosts.process import host_memory

Example = dict[str, np.ndarray]

PADDED = ("tokens", "valid", "target_tokens", "target_valid")  # Fields that are padded along their length.
TOKEN = 5  # Bytes per token: its id and its validity.
WINDOW = 16  # Batches whose examples are sorted by bucket together; order is random otherwise.


def check_row(**lengths: int) -> None:
  """UserError for rows too long for this host's memory; lengths by the names of their options."""
  limit = host_memory()
  for name, length in lengths.items():
    if limit is not None and length * TOKEN > limit:
      raise UserError(
        f"{name} is {length}. One row of so many tokens needs {length * TOKEN >> 30:,} GiB of this host's memory, "
        f"which has {limit >> 30:,} GiB. Lower it."
      )


class Buckets(NamedTuple):
  """The bucket lengths of batches, and the smallest bucket of each record.

  Attributes:
    lengths: per bucket the columns of each array, name -> columns, in increasing order.
    of_record: int [records]: the index of the first bucket that holds the record.
  """

  lengths: Sequence[Mapping[str, int]]
  of_record: np.ndarray

  def cut(self, batch: Example, indices: Sequence[int] | np.ndarray) -> Example:
    """Truncates a batch to the columns of the bucket that holds its records: [batch, full length] -> [batch, columns].

    Args:
      batch: arrays padded to full length; those without an entry in `lengths` are returned unchanged.
      indices: int [batch], the records.
    """
    lengths = self.lengths[int(self.of_record[indices].max())]
    return {name: array[:, : lengths[name]] if name in lengths else array for name, array in batch.items()}


def buckets(source: np.ndarray, target: np.ndarray, length: int, target_length: int, count: int) -> Buckets | None:
  """`count` buckets in equal steps up to the full lengths; None if `count` is 1.

  Args:
    source, target: int [records], token counts of the two texts of each record.
    length, target_length: their maxima.
    count: number of buckets.
  """
  if count < 1:
    raise UserError(f"buckets is {count}. It must be 1 (all batches of full length) or more.")
  if count == 1:
    return None
  steps = [tuple(-(-full * step // count) for full in (length, target_length)) for step in range(1, count + 1)]
  needed = [np.searchsorted([step[side] for step in steps], sizes) for side, sizes in enumerate((source, target))]
  names = [("tokens", "valid"), ("target_tokens", "target_valid")]
  lengths = [{name: step[side] for side in range(2) for name in names[side]} for step in steps]
  return Buckets(lengths, np.maximum(*needed))


class Bucketed:
  """Batches by bucket: step -> this host's examples of global batch `step`, all of one bucket if possible.

  Args:
    order: position in the stream -> record.
    examples: position in the stream -> the record's example at full length.
    buckets: the records' buckets.
    batch_size: rows of the global batch.
    rows: this host's rows.
    seed: of the order of batches; None: records stay in the stream's order.
  """

  def __init__(self, order: Any, examples: Any, buckets: Buckets, batch_size: int, rows: slice, seed: int | None):
    self._order, self._examples, self._buckets = order, examples, buckets
    self._batch_size, self._rows, self._seed = batch_size, rows, seed
    self._last: tuple[int, np.ndarray] = (-1, np.zeros(0, int))

  def __call__(self, step: int) -> Example:
    positions = self._positions(int(step))
    examples = [self._examples[int(position)] for position in positions[self._rows]]
    batch = {name: np.stack([example[name] for example in examples]) for name in examples[0]}
    return self._buckets.cut(batch, self._records(positions))

  def _records(self, positions: np.ndarray) -> np.ndarray:
    return np.array([self._order[int(position)] for position in positions])

  def _positions(self, step: int) -> np.ndarray:
    """The positions in the stream of batch `step`: int [batch_size]."""
    if self._seed is None:
      return np.arange(step * self._batch_size, (step + 1) * self._batch_size)
    window, last = step // WINDOW, self._last  # Shared by threads that read nearby batches; any may fill it.
    if last[0] != window:
      positions = np.arange(window * WINDOW * self._batch_size, (window + 1) * WINDOW * self._batch_size)
      by_bucket = positions[np.argsort(self._buckets.of_record[self._records(positions)], kind="stable")]
      self._last = last = (
        window,
        np.random.default_rng([self._seed, window]).permutation(by_bucket.reshape(WINDOW, -1)),
      )
    return last[1][step % WINDOW]


def padded_pair(source: np.ndarray, target: np.ndarray, length: int, target_length: int, pad: int) -> Example:
  """An example for `zoo.objectives.seq2seq` from source and target, int [any length up to the maximum].

  Returns:
    tokens int32 [length], valid bool [length], target_tokens int32 [target_length], target_valid bool [target_length]

  >>> {name: x.tolist() for name, x in padded_pair(np.array([5, 6]), np.array([7]), 3, 2, pad=0).items()}
  {'tokens': [5, 6, 0], 'valid': [True, True, False], 'target_tokens': [7, 0], 'target_valid': [True, False]}
  """
  example = {}
  for prefix, ids, size in (("", source, length), ("target_", target, target_length)):
    tokens = np.full(size, pad, np.int32)
    tokens[: len(ids)] = ids
    example |= {f"{prefix}tokens": tokens, f"{prefix}valid": np.arange(size) < len(ids)}
  return example


def cls_and_sep(tokenizer: Any) -> tuple[int, int]:
  """The cls and sep ids that frame a text for a bidirectional model; UserError if there are none."""
  cls = tokenizer.cls if tokenizer.cls is not None else tokenizer.bos
  sep = tokenizer.sep if tokenizer.sep is not None else tokenizer.eos
  if cls is None or sep is None:
    raise UserError(f"Tokenizer '{tokenizer}' has no start token (cls, bos) or no end token (sep, eos). Try bert.")
  return cls, sep


def end_token(tokenizer: Any) -> int:
  """The id of the end-of-text token; UserError if there is none."""
  end = tokenizer.eos if tokenizer.eos is not None else tokenizer.sep
  if end is None:
    raise UserError(f"Tokenizer '{tokenizer}' has no end-of-text token (eos or sep). Choose another, e.g. sotu.")
  return end
