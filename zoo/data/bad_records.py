"""Policy for records that cannot be read: raise an error, or skip up to a share of the data.

    "data": {..., "bad_records": {"action": "skip", "most": 0.01}}

A record is bad by itself: its image does not decode, its line is not JSON, its caption is empty. It is replaced by
the next good record of the source, so that batch k stays a function of (seed, k) and the data: every host, every number
of worker processes and every resumed run picks the same one without communicating.
"""

import contextlib
import math
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from zoo.errors import UserError, did_you_mean
from zoo.progress import progress

REPLACED = "replaced_record"  # A field of examples in the stream: the bad record that was replaced, or -1.
MOST = 0.01
SHOWN = 3  # Bad records named in a message.
LISTED = 100  # Bad records named by a full check.


class BadRecord(UserError):
  """A record that cannot be used. The message names its file, its key there, and the error."""


def utf8(value: Any, what: str) -> Any:
  """Decodes bytes as UTF-8, without a byte order mark; other values unchanged. BadRecord for other encodings.

  >>> utf8(b"caf\\xc3\\xa9", "record 0"), utf8(3, "record 1")
  ('café', 3)
  """
  if not isinstance(value, bytes):
    return value
  try:
    return value.decode().removeprefix("\ufeff")
  except UnicodeDecodeError as error:
    byte = value[error.start]
    raise BadRecord(f"{what} is not UTF-8: byte {error.start} is {byte:#04x}. Convert it.") from error


class Policy(NamedTuple):
  """Policy for bad records: raise, or, if `skips`, substitute others, up to the share `most` of all records.

  judged: the configured policy, if all bad records are skipped while they are listed; see `listing`.
  """

  skips: bool = False
  most: float = 0.0
  judged: tuple = ()

  def allowed(self, records: int) -> int:
    """The number of bad records allowed among `records`."""
    return math.floor(self.most * records + 1e-9)


def policy(section: str | Mapping[str, Any]) -> Policy:
  """Parses `data.bad_records`: "stop", "skip" (up to 0.01 of the records), {"action": "skip", "most": 0.05}.

  >>> policy({"action": "skip", "most": 0.05}).allowed(1000)
  50
  """
  entries = {"action": section} if isinstance(section, str) else dict(section)
  action = entries.pop("action", "skip")
  if action not in ("stop", "skip"):
    near = did_you_mean(str(action), ("stop", "skip"))
    raise UserError(f"data.bad_records.action is {action!r}.{near} It must be one of: stop, skip.")
  most = entries.pop("most", MOST)
  if entries:
    raise UserError(f"data.bad_records has no '{next(iter(entries))}'. It has: action, most.")
  if isinstance(most, bool) or not isinstance(most, int | float) or not 0 <= most < 1:
    raise UserError(f"data.bad_records.most is {most!r}. It must be a fraction of the records: at least 0, below 1.")
  rule = Policy(action == "skip", float(most)) if action == "skip" else Policy()
  return Policy(True, 1.0, (rule.skips, rule.most)) if _listing.get() else rule


_listing: ContextVar[bool] = ContextVar("listing", default=False)


@contextlib.contextmanager
def listing(active: bool = True) -> Generator[None]:
  """Context in which sources skip all of their bad records when opened, so that `check_all` can list and count them."""
  before = _listing.set(active)
  try:
    yield
  finally:
    _listing.reset(before)


class GoodExamples:
  """Reads examples, replacing bad records: (index, rng) -> the example of the record, or of the next good one.

  Args:
    records: a `zoo.data.pipeline.Records`.
  """

  def __init__(self, records: Any):
    self.records = records

  def __call__(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    part, first = self.records.part_of(index)
    errors: list[str] = []
    for tries in range(len(part)):
      candidate = first + (index - first + tries) % len(part)
      try:
        example = self.records.example(candidate, rng)
      except BadRecord as error:
        if not part.policy.skips:
          raise unskipped(error) from error
        errors.append(str(error))
        if len(errors) > part.policy.allowed(len(part)):
          raise UserError(too_many(errors, len(errors), part.name, len(part), part.policy)) from error
        continue
      return {**example, REPLACED: np.asarray(index if errors else -1, np.int64)} if self.records.may_skip else example
    raise UserError(too_many(errors, len(errors), part.name, len(part), part.policy))


def unskipped(error: object) -> BadRecord:
  """The error for a bad record that is not skipped, with the ways out.

  >>> unskipped("a.jsonl, line 3 is no JSON.")
  BadRecord('a.jsonl, line 3 is no JSON. Fix or remove it, or set data.bad_records=skip.')
  """
  return BadRecord(f"{error} Fix or remove it, or set data.bad_records=skip.")


def too_many(errors: Sequence[str], count: int, name: str, records: int, rule: Policy) -> str:
  """The error message for too many bad records: their share, and the first few."""
  first_errors = "; ".join(errors[:SHOWN])
  return (
    f"{name}: {count} of {records} records are bad, more than the fraction {rule.most:g} that data.bad_records.most "
    f"allows. The first: {first_errors} Fix them (--check-data lists all), or allow more: "
    "data.bad_records={'action': 'skip', 'most': FRACTION}."
  )


def first_good_record(source: Any, rule: Policy, check: Callable[[dict[str, Any], int], Any]) -> dict[str, Any]:
  """The first raw record that passes `check(record, index)`; raises the first error unless bad records are skipped."""
  errors: list[str] = []
  for index in range(len(source)):
    try:
      raw = source[index]
      check(raw, index)
      return raw
    except BadRecord as error:
      errors.append(str(error))
      if not rule.skips:
        raise
      if len(errors) > rule.allowed(len(source)):
        break
  raise UserError(too_many(errors, len(errors), source.name, len(source), rule))


def first_example(records: Any) -> dict[str, np.ndarray]:
  """The first readable example of `records`, as in evaluation: name -> array of one row, without a batch axis.

  Raises:
    BadRecord: a record cannot be read, and the policy does not skip so many.
  """
  errors: list[str] = []
  for index in range(len(records)):
    try:
      return records.example(index)
    except BadRecord as error:
      part, _ = records.part_of(index)
      errors.append(str(error))
      if not part.policy.skips:
        raise
      if len(errors) > part.policy.allowed(len(part)):
        break
  part, _ = records.part_of(0)
  raise UserError(too_many(errors, len(errors), part.name, len(part), part.policy))


def without_bad(records: Any) -> Any:
  """`records` without the bad ones, for a single pass: all records are read now; `bad` lists the errors.

  Raises:
    UserError: more are bad than allowed.
  """
  if not records.may_skip:
    return records

  problems = errors_by_record(records)
  check_share(records, problems)
  return records.without(problems) if problems else records


def errors_by_record(records: Any) -> dict[int, str]:
  """The error of each bad record; all records are read now, with one thread per core."""

  def problem(index: int) -> str | None:
    try:
      records.example(index)
    except BadRecord as error:
      return str(error)
    return None

  problems = {}
  with (
    progress(f"reading {records.name}", len(records), "records") as advance,
    ThreadPoolExecutor(os.cpu_count()) as pool,
  ):
    for index, error in enumerate(pool.map(problem, range(len(records)))):
      advance(1)
      if error:
        problems[index] = error
  return problems


def check_all(records: Any) -> tuple[bool, str]:
  """Reads every record -> whether the number of bad ones is allowed, and a report of the first LISTED."""
  problems = errors_by_record(records)
  errors = [*records.bad, *problems.values()]
  more = [f"... and {len(errors) - LISTED} more"] if len(errors) > LISTED else []
  total = len(records) + len(records.bad)
  lines = [*errors[:LISTED], *more, f"{records.name}: {len(errors)} of {total} records are bad."]
  return all(
    _few(part, [index for index in problems if records.part_of(index)[1] == first]) for part, first in _parts(records)
  ), "\n".join(lines)


def _parts(records: Any) -> Iterator[tuple[Any, int]]:
  """The members of `records`, and the index of the first record of each."""
  first = 0
  while first < len(records):
    part, first = records.part_of(first)
    yield part, first
    first += len(part)


def _few(part: Any, problems: Sequence[int]) -> bool:
  """Whether the number of bad records is allowed; those skipped on opening count if they were not checked then."""
  if not part.policy.judged:
    return len(problems) <= part.policy.allowed(len(part))
  return len(part.bad) + len(problems) <= Policy(*part.policy.judged).allowed(len(part) + len(part.bad))


def check_share(records: Any, problems: Mapping[int, str]) -> None:
  """UserError if more records of a part of `records` are bad than its policy allows."""
  of_part: dict[int, list[str]] = {}
  for index in sorted(problems):
    part, first = records.part_of(index)
    errors = of_part.setdefault(first, [])
    errors.append(problems[index])
    if len(errors) > part.policy.allowed(len(part)):
      count = sum(records.part_of(bad)[1] == first for bad in problems)
      raise UserError(too_many(errors, count, part.name, len(part), part.policy))
