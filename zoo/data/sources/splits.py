"""TFDS's split syntax for sources that are not TFDS's: `train`, `train[:90%]`, `train[10:-5]`, `train[-10%:]+test`.

A folder with subfolders `train`, `test` ... has these splits, and so has a path with `{split}` in it. Any other place
has one split, `train` (or `all`), whose parts are made by slicing. Examples lie in the order of a hash of their names,
the same on every machine, so that `train[:90%]` is a fair sample even of a sorted folder, and `train[90%:]` the rest of
it.
"""

import glob
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import UserError

SPLIT_FOLDERS = ("train", "test", "validation", "valid", "val", "dev")
_PART = re.compile(r"^\s*(?P<name>[\w-]+)\s*(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?\s*$")


def take(split: str, examples: Callable[[str], Any], what: str) -> list[Any]:
  """The slices that `split` names, one a term. `examples(name)` gives all of a whole split, a list or an array."""
  slices = []
  for term in str(split).split("+"):
    match = _PART.match(term)
    if not match:
      raise UserError(f"{what}: split '{split}' is not of the form train, train[:90%] or train[10:20]+test.")
    whole = examples(match["name"])
    start, stop = (_position(match[side], len(whole), split) for side in ("start", "stop"))
    slices.append(whole[start:stop])
  if not any(len(part) for part in slices):
    raise UserError(f"{what}: split '{split}' holds no example.")
  return slices


def folder_of_split(where: str, name: str, data_dir: str | None) -> tuple[Path, str]:
  """The folder that a split's files lie in, and the pattern of their names within it ("" = all of them)."""
  path = os.path.join(os.path.expanduser(data_dir or ""), os.path.expanduser(where))
  splits = SPLIT_FOLDERS
  if "{split}" in path:
    path, splits = path.replace("{split}", name), (name,)
  elif os.path.isdir(path):
    splits = [folder for folder in SPLIT_FOLDERS if os.path.isdir(os.path.join(path, folder))]
    if name in splits:
      path = os.path.join(path, name)
  else:
    splits = []
  if name not in (splits or ("train", "all")):
    has = ", ".join(splits) or "train, and parts of it such as train[:90%]"
    raise UserError(f"{where} has no split '{name}'. It has: {has}.")
  parts = Path(path).parts
  plain = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
  folder = Path(*parts[:plain])
  if plain == len(parts) and folder.is_file():
    return folder.parent, folder.name
  if not folder.is_dir():
    raise UserError(f"There is no folder {folder}. Check the source, and data_dir if the path is relative to it.")
  return folder, os.path.join(*parts[plain:]) if plain < len(parts) else ""


def files_of_split(where: str, name: str, data_dir: str | None, endings: tuple[str, ...]) -> tuple[Path, list[str]]:
  """The folder of a split and its files, as sorted paths relative to that folder."""
  folder, pattern = folder_of_split(where, name, data_dir)
  if pattern:
    found = [file for file in glob.glob(pattern, root_dir=folder, recursive=True) if (folder / file).is_file()]
  else:
    walk = os.walk(folder)
    found = [os.path.relpath(os.path.join(root, file), folder) for root, _, files in walk for file in files]
    is_hidden = lambda file: any(part.startswith(".") for part in file.split(os.sep))
    found = [file for file in found if file.lower().endswith(endings) and not is_hidden(file)]
  if not found:
    raise UserError(f"No file matches {folder / pattern} ({', '.join(endings)}). Check the source's path.")
  return folder, sorted(found)


def by_hash(names: Iterable[str]) -> list[str]:
  """`names` in the order of their hashes: shuffled, and the same everywhere."""
  return sorted(names, key=lambda name: hashlib.blake2b(os.fsencode(name), digest_size=16).digest())


def hash_order(file: str, count: int) -> np.ndarray:
  """A random-looking uint64 for each of the `count` examples of a file, to sort them by."""
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
    raise UserError(f"split '{split}' asks for {percent}%. It must lie between -100% and 100%.")
  return round((percent if percent >= 0 else 100 + percent) / 100 * length)
