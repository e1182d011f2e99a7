"""Default fields of a source by their usual names, reported when they are used."""

import contextlib
import functools
import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.data.bad_records import BadRecord, utf8
from zoo.data.cache import build_once, cache_folder
from zoo.data.sources import Source, open_source
from zoo.errors import UserError, one_line, tell

# Usual names of a field; the first is the plain name, whose use is not reported.
TEXT = ("text", "content", "document", "article", "sentence", "review", "body", "comment", "tweet", "story", "abstract")
LABEL = ("label", "labels", "class", "category", "sentiment", "target", "cls", "fine_label", "stars", "rating", "topic")
IMAGE = ("image", "img", "picture", "photo", "pixels")
# Fields of source and target texts.
SEQUENCES = (
  ("source", "target"),
  ("src", "tgt"),
  ("input", "output"),
  ("input", "target"),
  ("inputs", "targets"),
  ("document", "summary"),
  ("article", "highlights"),
  ("dialogue", "summary"),
  ("article", "summary"),
  ("text", "summary"),
  ("text", "target"),
  ("prompt", "completion"),
  ("instruction", "output"),
  ("question", "answer"),
)
# Fields of two texts that are classified together, as in GLUE and NLI datasets.
COMPARED = (
  ("text", "text_pair"),
  ("sentence1", "sentence2"),
  ("premise", "hypothesis"),
  ("question1", "question2"),
  ("text1", "text2"),
  ("text_a", "text_b"),
  ("sentence_A", "sentence_B"),
  ("question", "sentence"),
)

_CLASSES = 10_000  # Maximum number of classes.
_TRIES = 1000  # Records to try until one can be read.


@functools.lru_cache(maxsize=1000)
def say(line: str) -> None:
  """Writes a line to stderr, only once per process."""
  tell(line)


def length(pipeline: str, default: int, limit: int | None) -> int:
  """Default max_length of a pipeline: its own, or the model's limit if that is less."""
  most = "" if limit is None else f", of the {limit} that the model takes"
  tokens = default if limit is None else min(default, limit)
  say(f"{pipeline}: max_length is not set: it is {tokens} tokens{most}.")
  return tokens


def column(source: Source, name: str, value: str | None, candidates: Sequence[str]) -> str:
  """The field that an option names, or, if it is None, the first of `candidates` that a record has.

  If there is none, it is the first candidate, which pipelines then refuse with a list of the existing fields.

  Args:
    source: raw examples.
    name: of the option, e.g. "text_field".
    value: the option's value.
    candidates: in lower case.
  """
  if value is not None:
    return value
  fields = _fields(source)
  by_lower = {field.lower(): field for field in reversed(fields)}
  field = next((by_lower[candidate] for candidate in candidates if candidate in by_lower), candidates[0])
  if field in fields and field != candidates[0]:
    say(f"{source.name}: {name} is not set: it is '{field}', of {', '.join(fields)}.")
  return field


def pair_of_columns(
  source: Source,
  names: tuple[str, str],
  values: tuple[str | None, str | None],
  pairs: Sequence[tuple[str, str]],
) -> tuple[str, str] | None:
  """The two fields that options name, or the first of `pairs` of which a record has both; None if it has none.

  If one of the options is set, the other is what goes with it in `pairs`.
  """
  if None not in values:
    return values[0] or "", values[1] or ""
  fields = _fields(source)
  for pair in pairs:
    matches = all(value in (None, field) for value, field in zip(values, pair))
    if matches and all(field in fields for field in pair):
      if pair != pairs[0]:
        conflicting = " and ".join(
          f"{name} is '{field}'" for name, field, value in zip(names, pair, values) if value is None
        )
        say(f"{source.name}: {' and '.join(names)} are not both set: {conflicting}, of {', '.join(fields)}.")
      return pair
  return None


def class_names(
  source: Source, where: str, split: str, data_dir: str | None, field: str, label: Any
) -> list[str] | None:
  """Class names inferred from str labels: those of the split `train`, sorted.

  So a class has the same index in all splits. Without a `train` they are those of the split itself.

  Args:
    source: as opened.
    where, split, data_dir: arguments that it was opened with.
    field: of the label.
    label: of one record.
  """
  with contextlib.suppress(BadRecord):  # Bytes in another encoding are a word, which whoever reads it refuses or skips.
    if _word(label, source.name) is None:
      return None
  if field in source.class_names:
    return None
  try:
    whole, name = open_source(where, "train", data_dir), "train"
  except UserError:
    whole, name = source, split

  def write(folder: Path) -> None:
    names: set[str] = set()
    for index in range(len(whole)):
      with contextlib.suppress(BadRecord):
        word = _word(whole[index].get(field), whole.where(index))
        names |= {word} if word else set()
        if len(names) > _CLASSES:
          break
    (folder / "names.json").write_text(json.dumps(sorted(names)))

  if whole.fingerprint is None:
    with tempfile.TemporaryDirectory() as folder:
      write(Path(folder))
      names = json.loads((Path(folder) / "names.json").read_text())
  else:
    key = hashlib.blake2b(f"classes 2 {whole.fingerprint} {field}".encode("utf-8", "surrogateescape"), digest_size=16)
    folder = build_once(cache_folder() / "classes" / key.hexdigest(), write)
    names = json.loads((folder / "names.json").read_text())
  if len(names) > _CLASSES:
    raise UserError(f"{source.name}: '{field}' has more than {_CLASSES} values, as texts have. Set label_field.")
  some = ", ".join(one_line(label, most=60) for label in names[:10]) + (", ..." if len(names) > 10 else "")
  say(f"{source.name}: class_names is not set: they are the {len(names)} of '{field}' in {name}: {some}.")
  return names


def _word(label: Any, where: str) -> str | None:
  """A label that is a class name; None if it is a number or missing. BadRecord for bytes that are not UTF-8."""
  label = utf8(label, f"{where}: its label")
  if not isinstance(label, str) or not label.strip():
    return None
  try:
    float(label)
  except ValueError:
    return label
  return None


def _fields(source: Source) -> list[str]:
  """The fields of the first readable record; others are checked when they are read."""
  for index in range(min(len(source), _TRIES)):
    try:
      return [field for field in source[index] if not field.startswith("__")]
    except BadRecord:
      continue
  return []
