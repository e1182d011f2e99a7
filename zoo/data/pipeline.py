"""Deterministic batches: batch k is a pure function of (seed, k), so runs resume from any step on any number of hosts.

An epoch is a permutation of the records, a different one each time. The stream of epochs is cut into global batches, of
which each host reads its contiguous rows. A record's own randomness (which caption, where a document is cut) comes from
the seed and its position in the stream, before the split over hosts.
"""

import copy
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import grain
import numpy as np

from zoo.data.bad_records import REPLACED, GoodExamples, Policy
from zoo.data.padding import Bucketed, Buckets
from zoo.data.read_ahead import ReadAhead
from zoo.errors import UserError

Example = dict[str, np.ndarray]

TRACKER = "ignore:resource_tracker:UserWarning"
ENDLESS = 2**48  # Length of the stream of examples. Lengths near sys.maxsize, as from repeat(), overflow in grain.


class Records:
  """A finite, random-access dataset of examples, as returned by the pipelines in zoo/data.

  Attributes:
    info: metadata, e.g. `tokenizer`, `vocab_size`, `class_names`, `bytes`.
    buckets: the lengths that a batch may be padded to; None: examples are stacked unchanged.
    sizes: token counts of texts, int [records]; for pairs two of them, of the source and the target.
    policy: policy for bad records; see `zoo.data.bad_records`.
    may_skip: whether bad records may occur, and be skipped, when examples are read.
    bad: errors of the records that were skipped when the source was opened.
    continuing: whether rows continue those of the batch before, except where `continues` is False.
  """

  info: dict[str, Any]
  buckets: Buckets | None = None
  sizes: tuple[np.ndarray, ...] | None = None
  policy: Policy = Policy()
  may_skip: bool = False
  continuing: bool = False
  bad: tuple[str, ...] = ()

  @property
  def name(self) -> str:
    """Name of the dataset in messages."""
    return str(self.info.get("source", type(self).__name__))

  def __len__(self) -> int:
    raise NotImplementedError

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    """Example `index`: a dict of numpy arrays of fixed shapes. An rng present <=> training.

    Raises:
      BadRecord: the record is unusable.
    """
    raise NotImplementedError

  def part_of(self, index: int) -> tuple["Records", int]:
    """The member that record `index` belongs to, and the index of that member's first record."""
    return self, 0

  def without(self, problems: Mapping[int, str]) -> Self:
    """These records without those in `problems`, record -> its error."""
    raise NotImplementedError

  def order(self, seed: int, shuffle: bool, length: int, batch_size: int = 1) -> grain.MapDataset:
    """Training order: position in the stream -> record; a new permutation every epoch, about `length` positions.

    Args:
      seed: 0 <= seed < 2**32
      shuffle: False keeps the records in order.
      length: number of positions, rounded down to full epochs.
      batch_size: positions of a global batch, for data of which each host reads different files.
    """
    dataset = grain.MapDataset.range(len(self)).seed(seed)
    return (dataset.shuffle() if shuffle else dataset).repeat(length // len(self))

  def evaluated(self, step: int, batch_size: int) -> np.ndarray:
    """Record indices of evaluation batch `step`, int [batch_size]; `len(records)` or more is padding.

    In all `len(records) / batch_size` batches, rounded up, each record comes once.
    """
    return np.arange(step * batch_size, (step + 1) * batch_size)

  def read_ahead(self, rows: Callable[[int], Sequence[int]], batch_size: int) -> Callable[[int], ReadAhead] | None:
    """Read-ahead for remote data: first step -> a `ReadAhead`; None if it has no benefit.

    Args:
      rows: step -> records that this host reads.
      batch_size: records of a global batch.
    """
    return None

  def __getitem__(self, index: int) -> Example:
    if not -len(self) <= index < len(self):
      raise IndexError(f"There are {len(self)} records; index {index} is out of range.")
    return self.example(index % len(self))


class Batches:
  """An endless, random-access sequence of this host's batches: `batches[k]`, `batches.iterate(start_step)`."""

  def __init__(
    self,
    records: Records,
    dataset: grain.MapDataset,
    threads: int,
    prefetch: int,
    workers: int,
    ahead: Callable[[int], ReadAhead] | None = None,
  ):
    self.records, self._dataset, self._read_ahead = records, dataset, ahead
    self._threads, self._prefetch, self._workers = threads, prefetch, workers
    self._replaced: Callable[[int, np.ndarray], Any] | None = None

  def __getitem__(self, step: int) -> Example:
    """This host's rows of global batch `step`: a dict of arrays with leading axis batch."""
    return _noted(self._dataset[step], step, None)

  def noting(self, replaced: Callable[[int, np.ndarray], Any]) -> "Batches":
    """A copy of the batches with a callback for bad records that were replaced.

    Args:
      replaced: called with the index of a batch, from 0, and the bad records replaced in it, int [n].
    """
    noting = copy.copy(self)
    noting._replaced = replaced
    return noting

  def iterate(self, start_step: int = 0) -> Iterator[Example]:
    """Iterates over batches start_step, start_step + 1, ..., prefetched by threads or worker processes."""
    options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._prefetch)
    dataset = self._dataset[start_step:].to_iter_dataset(options)
    if self._workers:
      _let_grain_start_workers()
      buffered = max(1, self._prefetch // self._workers)
      options = grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=buffered)
      dataset = dataset.mp_prefetch(options, worker_init_fn=_ignore_ctrl_c)
    ahead = None if self._read_ahead is None else self._read_ahead(start_step)
    iterator = iter(dataset)
    try:
      for step, batch in enumerate(iterator, start_step):
        if ahead is not None:
          ahead.reached(step)
        yield _noted(batch, step, self._replaced)
    finally:
      iterator.close()  # Ends threads and processes once the iterator is garbage-collected or closed.
      if ahead is not None:
        ahead.close()


def batches(
  records: Records,
  batch_size: int,
  *,
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
  shuffle: bool = True,
  threads: int = 2,
  prefetch: int = 4,
  workers: int = 0,
) -> Batches:
  """Endless training batches.

  Args:
    records: from a pipeline.
    batch_size: rows of the global batch; each of `process_count` hosts gets `batch_size // process_count` of them.
    seed: any int; determines the order and every random choice within records.
    process_index, process_count: index and number of hosts (`jax.process_index()`, `jax.process_count()`).
    shuffle: False keeps the records in order, epoch after epoch.
    threads: number of batches prepared concurrently.
    prefetch: number of prepared batches in the queue.
    workers: number of processes that prepare batches instead of threads, for CPU-heavy decoding. Starting one takes
      seconds.
  """
  local = rows_per_host(batch_size, process_index, process_count)
  if len(records) == 0:
    raise UserError("The data hold no examples.")
  if workers < 0:
    raise UserError(f"workers is {workers}. It must be 0 (threads only) or a number of processes.")
  order = records.order(seed % 2**32, shuffle, ENDLESS, batch_size)
  examples = order.random_map(GoodExamples(records))
  if records.buckets is None:
    # Local batch k * process_count + process_index holds this host's rows of global batch k.
    dataset = examples.batch(local)[process_index::process_count]
    rows = lambda step: [int(order[step * batch_size + process_index * local + row]) for row in range(local)]
    ahead = records.read_ahead(rows, batch_size) if shuffle else None
    return Batches(records, dataset, threads, prefetch, workers, ahead)
  rows = slice(process_index * local, (process_index + 1) * local)
  sorting = seed % 2**32 if shuffle else None
  bucketed = Bucketed(order, examples, records.buckets, batch_size, rows, sorting)
  return Batches(records, grain.MapDataset.range(ENDLESS // batch_size).map(bucketed), threads, prefetch, workers)


def _noted(batch: Any, step: int, replaced: Callable[[int, np.ndarray], Any] | None) -> Example:
  """The batch without its REPLACED field, which is passed to `replaced`."""
  bad = batch.pop(REPLACED, None)
  if bad is not None and replaced is not None and (bad >= 0).any():
    replaced(step, bad[bad >= 0])
  return batch


class EvalBatches:
  """Batches for evaluation, every example once, in order: `len(batches)`, `batches[k]`, iteration.

  `weight` float32 [batch] is 1, and 0 on the rows that pad the last batch.
  """

  def __init__(self, records: Records, batch_size: int, process_index: int = 0, process_count: int = 1):
    self._records, self._batch_size = records, batch_size
    self._rows = rows_per_host(batch_size, process_index, process_count)
    self._first_row = self._rows * process_index

  def __len__(self) -> int:
    return -(-len(self._records) // self._batch_size)

  def __getitem__(self, step: int) -> Example:
    if not 0 <= step < len(self):
      raise IndexError(f"There are {len(self)} batches; index {step} is out of range.")
    global_indices = self._records.evaluated(step, self._batch_size)
    indices = global_indices[self._first_row : self._first_row + self._rows].tolist()
    examples = [self._records[min(index, len(self._records) - 1)] for index in indices]
    batch = stacked(examples)
    if self._records.buckets is not None:  # Over the full batch, so that lengths agree on all hosts.
      batch = self._records.buckets.cut(batch, np.minimum(global_indices, len(self._records) - 1))
    return batch | {"weight": np.array([index < len(self._records) for index in indices], np.float32)}

  def __iter__(self) -> Iterator[Example]:
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    return iter(grain.MapDataset.range(len(self)).map(self.__getitem__).to_iter_dataset(options))


def stacked(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Stacks examples to one batch; an image may be a dict of patches."""
  columns = {key: [example[key] for example in examples] for key in examples[0]}
  return {key: stacked(rows) if isinstance(rows[0], Mapping) else np.stack(rows) for key, rows in columns.items()}


def eval_batches(records: Records, batch_size: int, *, process_index: int = 0, process_count: int = 1) -> EvalBatches:
  """Batches for evaluation; arguments as in `batches`. All have batch_size rows; the last is padded, with weights.

  Raises:
    UserError: the data hold no examples.
  """
  if len(records) == 0:
    raise UserError("The data hold no examples.")
  return EvalBatches(records, batch_size, process_index, process_count)


def rows_per_host(batch_size: int, process_index: int, process_count: int) -> int:
  """Rows of the global batch that one host reads. Raises UserError if they do not divide."""
  if batch_size < 1 or batch_size % process_count:
    raise UserError(
      f"batch_size {batch_size} does not divide over {process_count} host(s). Choose a multiple of {process_count}."
    )
  if not 0 <= process_index < process_count:
    raise UserError(f"process_index is {process_index}. It must be from 0 to {process_count - 1}.")
  return batch_size // process_count


def _ignore_ctrl_c(index: int, count: int) -> None:
  """Ignores Ctrl-C in a worker: a terminal sends it to all processes, but the training process decides when to stop."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)


def _let_grain_start_workers() -> None:
  """Prepares this process for grain's workers.

  grain reads absl's flags, which notebooks, pytest and train.py do not parse. And a batch that a worker had
  prepared but not sent when it was stopped is cleaned up by Python's shared-memory tracker, which would warn about it
  at the end of every successful run: the tracker, a process, inherits its warning filters from here when it starts.
  """
  from absl import flags

  if TRACKER not in sys.warnoptions:
    sys.warnoptions.append(TRACKER)

  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
