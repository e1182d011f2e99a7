"""TFDS's split syntax for sources that are not TFDS's: `train`, `train[:90%]`, `train[10:-5]`, `train[:10%]+test`.

Percentages are rounded to the nearest example as TFDS rounds them. Examples lie in the order of a hash of their names, which
is the same on every machine, so that `train[:90%]` is a fair sample of a sorted folder and `train[90%:]` the rest of it.
"""

import hashlib
import re
from collections.abc import Callable, Iterable

from zoo.errors import UserError

_PART = re.compile(r"^\s*(?P<name>[\w-]+)\s*(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?\s*$")


def take(split: str, examples: Callable[[str], list], what: str) -> list:
  """The examples that `split` names. `examples(name)` gives those of a whole split, or raises UserError."""
  chosen: list = []
  for part in str(split).split("+"):
    match = _PART.match(part)
    if not match:
      raise UserError(
        f"split '{split}' of {what} cannot be read. It must look like train, train[:90%] or train[10:20]+test."
      )
    whole = examples(match["name"])
    start, stop = (_position(match[side], len(whole), split) for side in ("start", "stop"))
    chosen += whole[start:stop]
  if not chosen:
    raise UserError(f"split '{split}' of {what} holds no example.")
  return chosen


def by_hash(items: Iterable, key: Callable[[object], str]) -> list:
  """`items` in the order of a hash of their keys: shuffled, and the same everywhere."""
  return sorted(
    items, key=lambda item: hashlib.blake2b(key(item).encode("utf-8", "surrogateescape"), digest_size=16).digest()
  )


def _position(text: str | None, length: int, split: str) -> int | None:
  if text is None or not text.endswith("%"):
    return None if text is None else int(text)
  percent = int(text[:-1])
  if abs(percent) > 100:
    raise UserError(f"split '{split}' asks for {percent}%. It must lie between -100% and 100%.")
  return round(percent / 100 * length) if percent >= 0 else max(0, length + round(percent / 100 * length))
