"""Which field of a source is what, where a config does not say: by what such fields are usually called, and said so."""

import functools
from collections.abc import Sequence

from zoo.data.bad_records import BadRecord
from zoo.data.sources import Source
from zoo.errors import tell

# What a field is usually called; the first is its plain name, of which nothing is said.
TEXT = ("text", "content", "document", "article", "sentence", "review", "body", "comment", "tweet", "story", "abstract")
LABEL = ("label", "labels", "class", "category", "sentiment", "target", "cls", "fine_label", "stars", "rating", "topic")
IMAGE = ("image", "img", "picture", "photo", "pixels")
# The two texts of a pair, what is read and what is written.
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
# Two texts that are classified together, as GLUE and sets of inference have them.
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

_TRIES = 1000  # Records, of which one can be read.


@functools.lru_cache(maxsize=1000)
def say(line: str) -> None:
  """Writes a line on stderr, once in a process however often data are opened."""
  tell(line)


def length(pipeline: str, default: int, limit: int | None) -> int:
  """The max_length of a pipeline where none is set: its default, or what the model takes, if that is less."""
  most = "" if limit is None else f", of the {limit} that the model takes"
  tokens = default if limit is None else min(default, limit)
  say(f"{pipeline}: max_length is not set: it is {tokens} tokens{most}.")
  return tokens


def column(source: Source, name: str, value: str | None, candidates: Sequence[str]) -> str:
  """The field that an option names, or, where it is None, the first of `candidates` that a record has.

  Without any it is the first candidate, which pipelines then refuse with the fields that there are.

  Args:
    source: raw examples.
    name: of the option, e.g. "text_field".
    value: of the option.
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


def columns(
  source: Source,
  names: tuple[str, str],
  values: tuple[str | None, str | None],
  pairs: Sequence[tuple[str, str]],
) -> tuple[str, str] | None:
  """The two fields that options name, or the first of `pairs` of which a record has both; None: it has none.

  If one of the options is set, the other is what goes with it in `pairs`.
  """
  if None not in values:
    return values[0] or "", values[1] or ""
  fields = _fields(source)
  for pair in pairs:
    known = all(value in (None, field) for value, field in zip(values, pair))
    if known and all(field in fields for field in pair):
      if pair != pairs[0]:
        said = " and ".join(f"{name} is '{field}'" for name, field, value in zip(names, pair, values) if value is None)
        say(f"{source.name}: {' and '.join(names)} are not both set: {said}, of {', '.join(fields)}.")
      return pair
  return None


def _fields(source: Source) -> list[str]:
  """Those of the first record that can be read; what others are like is for who reads them."""
  for index in range(min(len(source), _TRIES)):
    try:
      return [field for field in source[index] if not field.startswith("__")]
    except BadRecord:
      continue
  return []
