"""Screens sources for bad records, for text pipelines, which read a full source when they open it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zoo.data.bad_records import BadRecord, Policy, policy, too_many, unskipped
from zoo.data.cache import build_once, cache_folder
from zoo.data.fields import texts_of
from zoo.data.sources import Source, open_source
from zoo.data.subset import without
from zoo.errors import UserError
from zoo.progress import progress


def without_bad_records(source: Source, rule: Policy, *fields: str, cache: bool = True) -> Source:
  """`source`, or, if bad records are skipped, its readable records with a text in every one of `fields`.

  The bad records are stored in the cache folder, like the tokens.

  Raises:
    UserError: more are bad than may be.
    BadRecord: one is known to be bad, and bad records are not skipped.
  """
  check_bad_records(source, rule)
  if not rule.skips:
    return source

  def write(folder: Path) -> None:
    (folder / "problems.json").write_text(json.dumps(list(_problems(source, fields).items())))

  if cache and source.fingerprint is not None:
    identity = f"screening 1 {source.fingerprint} {fields!r}".encode("utf-8", "surrogateescape")
    folder = cache_folder() / "screened" / hashlib.blake2b(identity, digest_size=16).hexdigest()
    problems = dict(json.loads((build_once(folder, write) / "problems.json").read_text()))
  else:
    problems = _problems(source, fields)
  if len(problems) > rule.allowed(len(source)):
    raise UserError(too_many(list(problems.values()), len(problems), source.name, len(source), rule))
  return without(source, problems) if problems else source


def open_checked(
  source: str, split: str, data_dir: str | None, bad_records: str | Mapping[str, Any]
) -> tuple[Source, Policy]:
  """The source that a section names, after `check_bad_records`, and its policy; arguments as pipelines have them."""
  raw, rule = open_source(source, split, data_dir), policy(bad_records)
  check_bad_records(raw, rule)
  return raw, rule


def check_bad_records(source: Source, rule: Policy) -> None:
  """BadRecord if a record of the source is known to be bad before it is read, and bad records are not skipped."""
  if source.broken and not rule.skips:
    others = f" (and {len(source.broken) - 1} more)" if len(source.broken) > 1 else ""
    error = source.broken[min(source.broken)]
    raise unskipped(f"{error}{others}")


def _problems(source: Source, fields: Iterable[str]) -> dict[int, str]:
  problems = {}
  with progress(f"looking for bad records in {source.name}", len(source), "records") as advance:
    for index in range(len(source)):
      try:
        raw = source[index]
        for field in fields:
          if field not in raw:
            raise BadRecord(f"{source.where(index)} has no field '{field}'. It has: {', '.join(raw)}.")
          texts_of(raw[field], f"{source.where(index)}: {field}")
      except BadRecord as error:
        problems[index] = str(error)
      advance(1)
  return problems
