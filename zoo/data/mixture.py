"""Mixtures of pipelines at fixed rates, for multi-task training (https://arxiv.org/abs/1910.10683, section 3.5.2).

    "data": {
      "name": "mixture",
      "members": {
        "summarise": {"name": "text_pairs", "prefix": "summarize: ", ...},
        "restore": {"name": "span_corruption", ...},
      },
      "rates": {"summarise": 0.75, "restore": 0.25},
    }

Every member has its own epochs. Members are interleaved as evenly as their rates allow, by a fixed rule, so
a batch is a function of seed and step here too.
"""

from collections.abc import Mapping
from typing import Any

import grain
import numpy as np

from zoo.config import registry
from zoo.data.bad_records import first_example
from zoo.data.padding import PADDED
from zoo.data.padding import buckets as make_buckets
from zoo.data.pipeline import Example, Records
from zoo.errors import UserError, did_you_mean

SIZES = ("vocab_size", "max_length", "target_length", "num_classes")  # Entries of `info`: the largest of all members.


def mixture(
  members: Mapping[str, Any], rates: Mapping[str, float], *, buckets: int = 4, bad_records: str | Mapping | None = None
) -> "Mixture":
  """Mixes examples of several pipelines in each batch, at fixed rates.

  Args:
    members: name -> section of a pipeline. All have the same fields and the same tokenizer; token rows may
      differ in length and are padded to the longest.
    rates: name -> the member's share of examples; they sum to 1.
    buckets: number of lengths that a batch of text pairs may have; see `zoo.data.padding`.
    bad_records: for members without their own. A bad record is replaced by one of its member.

  In evaluation every example of every member occurs once. `info`: that of the first member, with
  the largest vocab_size, max_length and target_length of all; members: name -> number of examples.

  Raises:
    UserError: rates do not add up to 1, do not fit the members, or a member is empty.
  """
  names = list(members)
  for name in rates:
    if name not in members:
      raise UserError(f"mixture.rates names '{name}'.{did_you_mean(name, names)} The members: {', '.join(names)}.")
  for name in names:
    if name not in rates:
      raise UserError(f"mixture.rates has no '{name}'. It needs one for each member: {', '.join(names)}.")
    rate = rates[name]
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 1:
      raise UserError(f"mixture.rates.{name} is {rate!r}. It must be above 0 and at most 1.")
  total = sum(rates.values())
  if abs(total - 1) > 1e-6:
    listed = ", ".join(f"{name} {rates[name]:g}" for name in names)
    raise UserError(f"mixture.rates are {listed}, {total:g} in all. They must add up to 1.")
  shared = {} if bad_records is None else {"bad_records": bad_records}
  of_section = lambda data: registry.build("data", {**shared, **data}) if isinstance(data, Mapping) else data
  opened = {name: of_section(data) for name, data in members.items()}
  for name, records in opened.items():
    if len(records) == 0:
      raise UserError(f"mixture.members.{name} has no examples.")
  return Mixture(opened, [float(rates[name]) for name in names], buckets)


class Mixture(Records):
  """See `mixture`. The records of the first member come first, then those of the second ..."""

  def __init__(self, members: Mapping[str, Records], rates: list[float], buckets: int):
    self.names, self.members, self.rates, self.most_buckets = list(members), list(members.values()), rates, buckets
    self.may_skip = any(records.may_skip for records in self.members)
    self.policy = max(records.policy for records in self.members)
    self.bad = tuple(error for records in self.members for error in records.bad)
    self.ends = np.cumsum([len(records) for records in self.members])
    examples = {name: first_example(records) for name, records in members.items()}
    self.shapes = _common_shapes(examples)
    infos = [records.info for records in self.members]
    _check_tokenizers(dict(zip(members, infos)))
    largest = {size: max(info[size] for info in infos) for size in SIZES if all(size in info for info in infos)}
    self.info = {**infos[0], **largest, "members": {name: len(records) for name, records in members.items()}}
    self.pad = getattr(self.info.get("tokenizer"), "pad", None) or 0
    if {"tokens", "target_tokens"} <= set(self.shapes) and "segment_ids" not in self.shapes:
      self.sizes = _sizes(self.members)
      lengths = (self.shapes[side][0] for side in ("tokens", "target_tokens"))
      self.buckets = make_buckets(*self.sizes, *lengths, buckets)

  def __len__(self) -> int:
    return int(self.ends[-1])

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    if not 0 <= index < len(self):
      raise IndexError(f"There are {len(self)} examples; index {index} is out of range.")
    member = int(np.searchsorted(self.ends, index, side="right"))
    example = self.members[member].example(index - self._first(member), rng)
    return {name: self._padded(name, array) for name, array in example.items()}

  def part_of(self, index: int) -> tuple[Records, int]:
    member = int(np.searchsorted(self.ends, index, side="right"))
    part, first = self.members[member].part_of(index - self._first(member))
    return part, first + self._first(member)

  def without(self, problems: Mapping[int, str]) -> "Mixture":
    members = {}
    for number, (name, records) in enumerate(zip(self.names, self.members, strict=True)):
      first = self._first(number)
      of_member = {index - first: problems[index] for index in problems if first <= index < self.ends[number]}
      members[name] = records.without(of_member) if records.may_skip else records
    return Mixture(members, self.rates, self.most_buckets)

  def order(self, seed: int, shuffle: bool, length: int, batch_size: int = 1) -> grain.MapDataset:
    """As in `Records`; `length` is the total over all members."""
    streams = []
    for number, records in enumerate(self.members):
      # Its own seed for each: two members of one size should not come in the same order.
      stream = records.order((seed + number) % 2**32, shuffle, length)
      streams.append(stream.map(_Shifted(self._first(number))))
    return grain.MapDataset.mix(streams, self.rates).seed(seed)

  def _first(self, member: int) -> int:
    return int(self.ends[member - 1]) if member else 0

  def _padded(self, name: str, array: np.ndarray) -> np.ndarray:
    padding = self.shapes[name][0] - array.shape[0] if name in PADDED else 0
    return np.pad(array, (0, padding), constant_values=self.pad if name.endswith("tokens") else 0) if padding else array


class _Shifted:
  """index -> index + first, picklable for worker processes."""

  def __init__(self, first: int):
    self.first = first

  def __call__(self, number: int) -> int:
    return number + self.first


def _common_shapes(examples: Mapping[str, Example]) -> dict[str, tuple[int, ...]]:
  """field -> the largest shape among members; UserError if their fields differ, or shapes other than lengths do."""
  (first, shapes), *others = examples.items()
  for name, example in others:
    if set(example) != set(shapes):
      raise UserError(
        f"mixture: member {first} gives {', '.join(shapes)}; {name} gives {', '.join(example)}. All members must agree."
      )
    for field, array in example.items():
      same = array.ndim == shapes[field].ndim if field in PADDED else array.shape == shapes[field].shape
      if not same:
        raise UserError(
          f"mixture: {field} has shape {shapes[field].shape} in member {first}, {array.shape} in {name}. All members "
          "must agree."
        )
  return {field: max(example[field].shape for example in examples.values()) for field in shapes}


def _check_tokenizers(infos: Mapping[str, Mapping[str, Any]]) -> None:
  """UserError if two members have different tokenizers."""
  (first, first_tokenizer), *others = ((name, str(info.get("tokenizer"))) for name, info in infos.items())
  for name, tokenizer in others:
    if tokenizer != first_tokenizer:
      raise UserError(
        f"mixture: member {first} has the tokenizer {first_tokenizer}, {name} has {tokenizer}. All members must agree."
      )


def _sizes(members: list[Records]) -> tuple[np.ndarray, np.ndarray]:
  """Token counts of every source and target; the full length for members that do not know them in advance."""
  all_sizes = []
  for records in members:
    sizes, example = records.sizes, first_example(records)
    full = tuple(np.full(len(records), len(example[side])) for side in ("tokens", "target_tokens"))
    all_sizes.append(full if sizes is None else sizes)
  source, target = zip(*all_sizes)
  return np.concatenate(source), np.concatenate(target)
