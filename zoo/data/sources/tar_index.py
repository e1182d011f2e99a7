"""Index of the members of a tar file, stored in the cache folder."""

import hashlib
import json
import re
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from zoo.data.cache import build_once, cache_folder
from zoo.data.images import files as image_files
from zoo.data.sources import file_fingerprint
from zoo.data.sources.files import StoragePath, opened, status
from zoo.data.sources.splits import is_hidden
from zoo.errors import UserError

IMAGES = (*(ending[1:] for ending in image_files.PICTURES), "img", "image")
SOUNDS = ("wav", "flac", "ogg", "opus", "mp3")
TEXTS = ("txt", "text", "caption")
# Keys of metadata in a shard, which are not examples.
_ABOUT = re.compile(
  r"(readme|licen[cs]e|copying|notice|authors|change(s|log)|citation|index|info|stats|meta(data)?|dataset(_?info)?|"
  r"manifest|classes|labels|(check|md5|sha\d*)_?sums?)([-_.].*)?",
  re.IGNORECASE,
)


class Shard(NamedTuple):
  """The members of a tar file, grouped by example: `examples[e]` is its first member."""

  path: StoragePath
  names: list[str]  # [members] key.ending
  places: np.ndarray  # [members, 2] first byte, size
  examples: np.ndarray  # [examples + 1]
  errors: dict[int, str]  # Errors of unusable examples.


class Member(NamedTuple):
  """A file in a tar file."""

  name: str
  start: int  # Offset of its first byte.
  size: int


def listed_shard(path: StoragePath, place: Callable[[], StoragePath]) -> Shard:
  """The index of a shard, from the cache folder, or else from reading it at `place()`."""
  key = hashlib.blake2b(f"webdataset 3 {file_fingerprint([path])}".encode(), digest_size=16).hexdigest()
  folder = build_once(cache_folder() / "tar" / key, lambda folder: _write_index(path, place(), folder))
  names, errors = json.loads((folder / "names.json").read_text())
  arrays = (np.load(folder / f"{name}.npy") for name in ("places", "examples"))
  return Shard(path, names, *arrays, {example: error for example, error in errors})


def _write_index(path: StoragePath, place: StoragePath, folder: Path) -> None:
  """Writes the index of the shard `path`, which is read at `place`."""
  groups: dict[str, list[Member]] = {}
  for member in _listed(path, place):
    groups.setdefault(key_of(member.name), []).append(member)
  if not groups:
    raise UserError(f"{path} contains no files. Remove it, or download it again.")
  last = max((member for group in groups.values() for member in group), key=lambda item: item.start + item.size)
  if last.start + last.size > status(place)[0]:
    raise UserError(f"{path} is truncated: {last.name!r} is cut off. Fetch it again.")
  examples = list(_without_loose(groups).values())
  if not examples:
    raise UserError(f"{path} contains no examples. Members with the same key form one example: 0.png, 0.txt.")
  errors = [(number, error) for number, group in enumerate(examples) if (error := _doubled(group)) is not None]
  listed = [member for group in examples for member in group]
  (folder / "names.json").write_text(json.dumps([[member.name for member in listed], errors]))
  np.save(folder / "places.npy", np.array([(member.start, member.size) for member in listed], np.int64))
  np.save(folder / "examples.npy", np.cumsum([0, *map(len, examples)]))


def _listed(path: StoragePath, place: StoragePath) -> Iterable[Member]:
  """The files in a tar file, without hidden ones."""
  members: dict[str, Member] = {}
  try:
    with opened(place) as file, tarfile.open(fileobj=file, mode="r:") as tar:
      for entry in tar:
        name = entry.name.removeprefix("./")
        if entry.islnk() and entry.linkname in members:  # A hard link to an earlier file.
          member = members[entry.linkname]._replace(name=name)
        elif entry.isreg() and not entry.issparse():
          member = Member(name, entry.offset_data, entry.size)
        else:
          continue
        members[entry.name] = member
        if not is_hidden(name):
          yield member
      _check_end(path, file, tar.offset)
  except (tarfile.TarError, EOFError, OSError) as error:
    raise UserError(
      f"{path} is not an intact, uncompressed tar file ({error}). Fetch it again, or decompress it."
    ) from error


def _check_end(path: StoragePath, file: IO[bytes], end: int) -> None:
  """UserError unless zeros, the end mark, fill `file` from byte `end` on, where tarfile stopped reading.

  It stops without an error at a damaged header, other than the first, and at an end mark with members behind it.
  """
  file.seek(end)
  if not (block := file.read(tarfile.BLOCKSIZE)):
    raise UserError(f"{path} is truncated: it ends at byte {end} without an end mark. Fetch it again.")
  if any(block):
    raise UserError(f"{path} is damaged: the header of the member at byte {end} is not valid. Fetch it again.")
  place = end + len(block)
  while chunk := file.read(2**20):
    if rest := chunk.lstrip(b"\0"):
      place += len(chunk) - len(rest)
      raise UserError(
        f"{path} has its end mark at byte {end} and goes on at byte {place}: it is damaged, or several tar files in "
        "one. Fetch it again, or keep them apart."
      )
    place += len(chunk)


def _without_loose(groups: Mapping[str, list[Member]]) -> dict[str, list[Member]]:
  """The groups of members that are examples, without stray files."""
  groups = {key: group for key, group in groups.items() if "." in group[0].name.rpartition("/")[2]}
  holding = lambda kinds: {key for key, group in groups.items() if any(ending_of(member) in kinds for member in group)}
  example_keys = holding((*IMAGES, *SOUNDS)) or holding((*TEXTS, "json"))
  forms = {_form(key) for key in example_keys}

  def loose(key: str) -> bool:
    if not example_keys or key in example_keys:
      return False
    return _ABOUT.fullmatch(key.rpartition("/")[2]) is not None or _form(key) not in forms

  return {key: group for key, group in groups.items() if not loose(key)}


def _form(key: str) -> str:
  """The form of a key, with numbers and names replaced: `part/00012` and `part/7` are `a/0`."""
  return re.sub(r"[^\W\d]+", "a", re.sub(r"\d+", "0", key))


def _doubled(group: list[Member]) -> str | None:
  """Describes members of one key with the same ending; None if there are none."""
  endings: dict[str, Member] = {}
  for member in group:
    ending = "image" if ending_of(member) in IMAGES else ending_of(member)
    if ending in endings:
      first = endings[ending]
      return (
        f"{first.name!r} at byte {first.start} and {member.name!r} at byte {member.start} have the same key. "
        "Give each example a key of its own."
      )
    endings[ending] = member
  return None


def ending_of(member: Member) -> str:
  """The extension of a member after its key, in lower case: `seg.png`."""
  return member.name.removeprefix(f"{key_of(member.name)}.").lower()


def key_of(name: str) -> str:
  """The key of an example's members: the path up to the first dot of the file's name."""
  folder, slash, file = name.rpartition("/")
  return folder + slash + file.partition(".")[0]
