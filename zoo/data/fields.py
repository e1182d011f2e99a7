"""Reads fields of raw examples: texts, class labels, groups; and caches small datasets in memory."""

import copy
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from zoo.data.bad_records import BadRecord, Policy, first_good_record, utf8
from zoo.data.block_order import BlockOrder, LaneOrder, lanes_of
from zoo.data.pipeline import Records
from zoo.data.read_ahead import ReadAhead
from zoo.data.sources import Source
from zoo.data.subset import without
from zoo.data.tokenizers import tokenizer as open_tokenizer
from zoo.errors import UserError, did_you_mean, shown

_AHEAD = 2000  # Maximum steps of read-ahead for remote data.
TEXT_KEYS = ("text", "raw", "caption")  # Of captions that are objects: COCO's in TFDS, Karpathy's "sentences".


def encoder_for(tokenizer: str, max_length: int) -> Any:
  """Opens the tokenizer of a name or path; UserError if it cannot make sequences of `max_length` tokens."""
  encoder = open_tokenizer(tokenizer)
  if encoder.max_length is not None and not 1 <= max_length <= encoder.max_length:
    raise UserError(
      f"max_length is {max_length}. The tokenizer '{tokenizer}' makes sequences of 1 to {encoder.max_length}."
    )
  return encoder


def text_info(source: Source, encoder: Any, max_length: int, **entries: Any) -> dict[str, Any]:
  """The `info` of token records: source, tokenizer, vocab_size, max_length, and further entries."""
  info = {"source": source.name, "tokenizer": encoder, "vocab_size": encoder.vocab_size, "max_length": max_length}
  return info | entries


def check_fields(source: Source, *fields: str | None, record: Mapping[str, Any] | None = None) -> None:
  """Raises UserError if `record`, by default the first of `source`, lacks one of `fields` (None is no field)."""
  names = [field for field in (source[0] if record is None else record) if not field.startswith("__")]
  for field in fields:
    if field is not None and field not in names:
      has = f"It has: {', '.join(names)}.{source.hint}"
      raise UserError(f"{source.name} has no field '{field}'.{did_you_mean(field, names)} {has}")


def first_record(
  source: Source,
  rule: Policy,
  *fields: str | Sequence[str] | None,
  check: Callable[[dict[str, Any], int], Any] | None = None,
) -> dict[str, Any]:
  """The first raw record, to check a config against; if bad records are skipped, the first usable one.

  Args:
    source: raw examples.
    rule: policy for bad records.
    *fields: names of required fields, or tuples of names of which one is required; None is ignored.
    check: (record, index); raises BadRecord for a bad one.

  Raises:
    BadRecord: no record can be used, or the first cannot and bad records are not skipped.
    UserError: that record lacks a field.
  """

  def usable(record: dict[str, Any], index: int) -> None:
    for field in fields if rule.skips else ():
      names = [field] if isinstance(field, str) else field or ()
      if names and not any(name in record for name in names):
        raise BadRecord(_lacking(source.where(index), " or ".join(names), record))
    if check is not None:
      check(record, index)

  record = first_good_record(source, rule, usable)
  check_fields(source, *(field for field in fields if isinstance(field, str)), record=record)
  return record


def _lacking(where: str, field: str, record: Mapping[str, Any]) -> str:
  names = ", ".join(name for name in record if not name.startswith("__"))
  return f"{where} has no '{field}'. It has: {names}."


def texts_of(value: Any, what: str) -> list[str]:
  """Texts of a field: a str or bytes (TFDS), or a list of them, as a list of non-blank str.

  Captions may be objects that keep their text as `text`, `raw` or `caption`, or an object of lists.

  >>> texts_of([{"raw": "a dog"}, {"raw": "it runs"}], "record 0")
  ['a dog', 'it runs']
  """
  content = lambda item: (
    next((item[key] for key in TEXT_KEYS if key in item), item) if isinstance(item, Mapping) else item
  )
  value = content(value)
  values = [content(item) for item in (value if isinstance(value, list | tuple | np.ndarray) else [value])]
  texts = [utf8(text, what) for text in values]
  if not all(isinstance(text, str) for text in texts):
    raise BadRecord(f"{what} is {shown(value, 80)}, not a str.")
  return [text.strip() for text in texts if text.strip()]


def text_of(value: Any, what: str) -> str:
  """The single text of a field, stripped; BadRecord if it is empty."""
  texts = texts_of(value, what)
  if not texts:
    raise BadRecord(f"{what} is empty.")
  return texts[0]


def group_of(value: Any) -> np.int32:
  """An int32 group id, equal for equal values: the value itself if it is an int32, else a 31-bit hash."""
  if isinstance(value, int | np.integer) and 0 <= int(value) < 2**31:
    return np.int32(value)
  value = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else repr(value).encode()
  return np.int32(zlib.crc32(value) & 0x7FFFFFFF)


def templates_of(templates: Any, what: str, goes_in: str) -> tuple[str, ...]:
  """Validates templates, one or several, each with {}.

  Args:
    templates: a str, or several.
    what, goes_in: their owner and the replacement of {}, for error messages.

  >>> templates_of("a drawing of {}", "caption", "the caption")
  ('a drawing of {}',)
  """
  several = (templates,) if isinstance(templates, str) else tuple(templates)
  if not several:
    raise UserError(f"{what}: templates is empty. Give one, e.g. '{{}}', where {goes_in} goes.")
  for template in several:
    if not isinstance(template, str) or "{}" not in template:
      raise UserError(f"{what}: the template {shown(template)} must be a str with {{}} where {goes_in} goes.")
  return several


def class_number(label: Any, class_ids: Mapping[str, int], what: str) -> np.int32:
  """The index of a class.

  Args:
    label: index or name of the class.
    class_ids: name -> index of all classes; empty if unknown.
    what: the record's name in messages.
  """
  label = utf8(label, f"{what}: its label")
  if isinstance(label, str) and label in class_ids:
    return np.int32(class_ids[label])
  if isinstance(label, str) and not label.strip().isdecimal():
    names = ", ".join(list(class_ids)[:20]) or "none. Set class_names"
    raise BadRecord(f"{what}: label {shown(label)} is not a class. The classes are: {names}.")
  count = len(class_ids) or 2**31
  # An int may be too large for a float.
  number = label if isinstance(label, int) else float(label) if isinstance(label, str | float | np.number) else -1
  if not 0 <= number < count or number % 1:
    raise BadRecord(f"{what}: label {shown(label)} is not one of 0 to {count - 1}.")
  return np.int32(label)


class PreparedRecords:
  """`prepare(source[i], i)`, memoized if `cache` is set."""

  def __init__(self, source: Source, prepare: Callable[[dict[str, Any], int], Any], cache: bool):
    self._source, self._prepare = source, prepare
    self._memory: dict[int, Any] | None = {} if cache else None

  def __getitem__(self, index: int) -> Any:
    if self._memory is None:
      return self._prepare(self._source[index], index)
    if index not in self._memory:  # Two threads may prepare the same record; both get the same.
      self._memory[index] = self._prepare(self._source[index], index)
    return self._memory[index]


class SourceRecords(Records):
  """Records prepared lazily from a source's, so that bad ones can be skipped.

  Args:
    source: raw examples.
    rule: policy for bad ones.
    cache: keep the results of `_prepare` in memory.
  """

  def __init__(self, source: Source, rule: Policy, cache: bool):
    self.source, self.policy, self.may_skip, self.bad = source, rule, rule.skips, source.bad
    self.cache = cache
    self.prepared = PreparedRecords(source, self._prepare, cache)

  def __len__(self) -> int:
    return len(self.source)

  def order(self, seed: int, shuffle: bool, length: int, batch_size: int = 1) -> grain.MapDataset:
    blocks, window = self.source.blocks, self.source.window
    if blocks is None or not shuffle:
      return super().order(seed, shuffle, length)
    lanes = lanes_of(batch_size, len(np.unique(blocks)), self.source.lanes)
    order = BlockOrder(blocks, window, seed, kept=4 * lanes)
    stream = LaneOrder(order, lanes, batch_size) if lanes > 1 else order
    return grain.MapDataset.range(length).seed(seed).map(stream)

  def read_ahead(self, rows: Callable[[int], Sequence[int]], batch_size: int) -> Callable[[int], ReadAhead] | None:
    if self.source.blocks is None or not self.source.reads_ahead:
      return None
    count = len(np.unique(self.source.blocks))
    rows_of_lane = batch_size // lanes_of(batch_size, count, self.source.lanes)
    steps = min(_AHEAD, 8 + len(self) // count // rows_of_lane)  # About one block per lane.
    return lambda first: ReadAhead(self.source, rows, first, steps)

  def without(self, problems: Mapping[int, str]) -> "SourceRecords":
    fewer = copy.copy(self)
    SourceRecords.__init__(fewer, without(self.source, problems), self.policy, self.cache)
    fewer.may_skip = False
    return fewer

  def _prepare(self, raw: dict[str, Any], index: int) -> Any:
    """The epoch-independent part of record `index`; BadRecord if it is unusable."""
    raise NotImplementedError

  def _check(self, raw: Mapping[str, Any], index: int, *fields: str | None) -> None:
    """BadRecord if a record lacks one of `fields`."""
    for field in fields:
      if field is not None and field not in raw:
        raise BadRecord(_lacking(self.source.where(index), field, raw))
