"""TFDS's split syntax for other sources: `train`, `train[:90%]`, `train[10:-5]`, `train[-10%:]+test`.

A folder with subfolders `train`, `test` ... has these splits, and so has a path with `{split}` in it; `validation`,
`val`, `valid` and `dev` are synonyms. Several files may be named as in `{00000..00099}.tar` and `{a,b}.tar`. Any
other location has one split, `train` (or `all`), to be sliced. Examples are in the order of a hash of
their names, the same on every machine, so that `train[:90%]` is a fair sample even of a sorted folder, and
`train[90%:]` the rest.
"""

import glob
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.sources.files import StoragePath, at, listed, matching
from zoo.data.sources.web import is_web
from zoo.errors import UserError
from zoo.storage import is_remote

VALIDATION = ("validation", "valid", "val", "dev")  # Synonyms of one split.
SPLIT_FOLDERS = ("train", "test", *VALIDATION)
_PART = re.compile(r"^\s*(?P<name>[\w-]+)\s*(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?\s*$")

_BRACES = re.compile(r"\{(?:(?P<first>\d{1,18})\.\.(?P<last>\d{1,18})|(?P<words>[^{}]*,[^{}]*))\}")
_MOST_NAMES = 10**6


class NoSplit(UserError):
  """A source has no split of this name; the message lists its splits."""


def take(split: str, examples: Callable[[str], Any], what: str, hint: str = "") -> list[Any]:
  """The slices that `split` names, one per term.

  Args:
    split: in TFDS's syntax.
    examples: name of a split -> all of its examples, a list or an array.
    what: name of the source in messages.
    hint: the way out in messages for an empty slice.
  """
  slices, sizes = [], {}
  for term in str(split).split("+"):
    match = _PART.match(term)
    if not match:
      raise UserError(f"{what}: split '{split}' is not of the form train, train[:90%] or train[10:20]+test.")
    full = examples(match["name"])
    start, stop = (_position(match[side], len(full), split) for side in ("start", "stop"))
    slices.append(full[start:stop])
    sizes[match["name"]] = len(full)
  if not any(len(part) for part in slices):
    of_all = ", ".join(f"{size:,} of '{name}'" for name, size in sizes.items())
    raise UserError(
      f"{what}: split '{split}' has no examples. There are {of_all} in all. {hint or 'Choose a larger part.'}"
    )
  return slices


def folder_of_split(where: str, name: str, data_dir: str | None) -> tuple[StoragePath, str]:
  """The folder of a split's files, and the pattern of their names within it ("" = all of them)."""
  path = where if is_remote(where) else os.path.join(os.path.expanduser(data_dir or ""), os.path.expanduser(where))
  splits = SPLIT_FOLDERS
  if "{split}" in path:
    path, splits = path.replace("{split}", name), (name,)
  elif at(path).is_dir():
    splits = [folder for folder in SPLIT_FOLDERS if (at(path) / folder).is_dir()]
    aliases = [folder for folder in splits if folder in VALIDATION]
    if name not in splits and name in VALIDATION and len(aliases) == 1:
      name = aliases[0]
    if name in splits:
      path = os.path.join(path, name)
  else:
    splits = []
  if name not in (splits or ("train", "all")):
    choices = ", ".join(splits) or "train, and parts of it such as train[:90%]"
    raise NoSplit(f"{where} has no split '{name}'. It has: {choices}.")
  scheme, _, path_part = path.rpartition("://")
  parts = Path(path_part).parts
  literal = at(path).exists()  # A name may contain brackets.
  plain = next((i for i, part in enumerate(parts) if not literal and _is_pattern(part)), len(parts))
  folder = at(f"{scheme}://{'/'.join(parts[:plain])}" if scheme else Path(*parts[:plain]))
  if plain == len(parts) and folder.is_file():
    return folder.parent, folder.name
  if not folder.is_dir() and not (is_web(folder) and plain < len(parts)):  # Servers need not list their files.
    raise UserError(
      f"There is no folder or file {folder}. Check the source, and data_dir if the path is relative to it."
    )
  return folder, os.path.join(*parts[plain:]) if plain < len(parts) else ""


def _is_pattern(path: str) -> bool:
  return glob.has_magic(path) or _BRACES.search(path) is not None


def files_of_split(
  where: str, name: str, data_dir: str | None, endings: tuple[str, ...]
) -> tuple[StoragePath, list[str]]:
  """The folder of a split and its files, as sorted paths relative to that folder."""
  folder, pattern = folder_of_split(where, name, data_dir)
  if pattern:
    names = expand_braces(pattern)
    files = {file for item in names for file in (matching(folder, item) if glob.has_magic(item) else [item])}
    plain = [item for item in names if item in files]
    missing = [item for item in plain if not (folder / item).is_file()]
    if missing and len(names) > 1:
      raise UserError(
        f"{folder / pattern} names {len(names)} files, of which {len(missing)} are missing: {missing[0]} ..."
      )
    files = files.difference(missing)
  else:
    files = {file for file in listed(folder) if file.lower().endswith(endings) and not is_hidden(file)}
  if not files:
    raise UserError(f"No file matches {folder / pattern} ({', '.join(endings)}). Check the source's path.")
  return folder, sorted(files)


def matching_names(files: Iterable[str], patterns: Iterable[str]) -> list[str]:
  """The files, as relative paths, that match one of several patterns such as `data/train-*` or `**/*.parquet`.

  >>> matching_names(["data/train-0.parquet", "data/test-0.parquet"], ["data/train-*"])
  ['data/train-0.parquet']
  """
  letters = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
  translated = (
    "".join(letters.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*\*|\*|\?)", name.removeprefix("./")))
    for pattern in patterns
    for name in expand_braces(pattern)
  )
  matcher = re.compile("|".join(translated) or r"(?!)")
  return [file for file in files if matcher.fullmatch(file.replace(os.sep, "/"))]


def is_hidden(file: str) -> bool:
  """Whether a path is hidden or created by an operating system: .git, .DS_Store, AppleDouble's ._name, __MACOSX."""
  return any(part.startswith(".") or part == "__MACOSX" for part in file.split(os.sep) if part not in (".", ".."))


def expand_braces(pattern: str) -> list[str]:
  """Expands `{00000..00099}` and `{a,b}`, as in a shell and webdataset.

  >>> expand_braces("{08..10}-{a,b}.tar")
  ['08-a.tar', '08-b.tar', '09-a.tar', '09-b.tar', '10-a.tar', '10-b.tar']
  """
  match = _BRACES.search(pattern)
  if match is None:
    return [pattern]
  first, last = match["first"], match["last"]
  if first is None:
    words = match["words"].split(",")
  else:
    direction = 1 if int(first) <= int(last) else -1
    if abs(int(last) - int(first)) >= _MOST_NAMES:
      raise UserError(f"{pattern} names more than {_MOST_NAMES:,} files.")
    words = [str(number).zfill(len(first)) for number in range(int(first), int(last) + direction, direction)]
  endings = expand_braces(pattern[match.end() :])
  if len(words) * len(endings) > _MOST_NAMES:
    raise UserError(f"{pattern} names more than {_MOST_NAMES:,} files.")
  return [pattern[: match.start()] + word + end for word in words for end in endings]


def by_hash(names: Iterable[str]) -> list[str]:
  """`names` sorted by hash: a shuffle that is the same on every machine."""
  return sorted(names, key=lambda name: hashlib.blake2b(os.fsencode(name), digest_size=16).digest())


def hash_order(file: str, count: int) -> np.ndarray:
  """Pseudo-random sort keys of the `count` examples of a file, from its name alone: uint64 [count]"""
  seed = int.from_bytes(hashlib.blake2b(os.fsencode(file), digest_size=8).digest(), "little")
  x = np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)  # SplitMix64, which wraps.
  x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return x ^ (x >> np.uint64(31))


def _position(text: str | None, length: int, split: str) -> int | None:
  if text is None or not text.endswith("%"):
    return None if text is None else int(text)
  percent = int(text[:-1])
  if abs(percent) > 100:
    raise UserError(f"split '{split}' asks for {percent}%. It must be between -100% and 100%.")
  return round((percent if percent >= 0 else 100 + percent) / 100 * length)
