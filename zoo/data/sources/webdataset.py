"""`webdataset:shards/*.tar`: tar files whose members of one key (`0001.png`, `0001.txt`, `0001.json`) are one example.

A shard in a bucket is copied to the cache folder, while training reads ahead or if all shards have room there; until
then its examples are read from the bucket one by one. Each host reads shards of its own: see `zoo.data.block_order`.

A shard's members are listed once and remembered in the cache folder; an example is then read at its place in the file,
so examples come in any order. Members' names are never used as paths. Shards may have the same keys; in one shard a key
is one example, wherever its members are, and a key with two images, or two members of one ending, is a bad record.

What systems and people leave beside the examples is none: hidden files, names without an ending (`README`), and in a
shard of images what has none and is not named like them (`LICENSE.txt`, `index.json`); likewise in a shard of texts.
"""

import contextlib
import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo.data.bad_records import BadRecord
from zoo.data.cache import cache_folder, made_once
from zoo.data.images import files as image_files
from zoo.data.sources import Source, copies, json_value, stamp
from zoo.data.sources.files import Place, opened, read_part, status
from zoo.data.sources.splits import files_of_split, hash_order, is_hidden, take
from zoo.errors import UserError
from zoo.storage import is_remote

IMAGES = (*(ending[1:] for ending in image_files.PICTURES), "img", "image")
HELD = 2**35  # Bytes of the shards of a bucket that training reads at the same time, on all hosts together.
_BETWEEN = 2**14  # Bytes between two members that may as well be read.
SOUNDS = ("wav", "flac", "ogg", "opus", "mp3")
TEXTS = ("txt", "text", "caption")
# Keys of what describes a shard and is no example of it.
_ABOUT = re.compile(
  r"(readme|licen[cs]e|copying|notice|authors|change(s|log)|citation|index|info|stats|meta(data)?|dataset(_?info)?|"
  r"manifest|classes|labels|(check|md5|sha\d*)_?sums?)([-_.].*)?",
  re.IGNORECASE,
)


class Shard(NamedTuple):
  """The members of a tar file, those of an example next to each other: `examples[e]` is its first member."""

  path: Place
  names: list[str]  # [members] key.ending
  places: np.ndarray  # [members, 2] first byte, size
  examples: np.ndarray  # [examples + 1]
  errors: dict[int, str]  # Of examples that cannot be used.


class Member(NamedTuple):
  """A file in a tar file."""

  name: str
  start: int  # Its first byte.
  size: int


def webdataset(where: str, split: str, data_dir: str | None = None) -> "WebDataset":
  """Opens uncompressed tar files."""
  shards: list[Shard] = []

  def examples(name: str) -> np.ndarray:
    folder, files = files_of_split(where, name, data_dir, (".tar",))
    tables, orders = [], []
    paths = [folder / file for file in files]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Of a bucket most of the time goes by with waiting.
      remotes = list(pool.map(copies.remote, paths)) if is_remote(folder) else []
      near = sum(file.size for file in remotes) <= copies.limit() if remotes else True
      indexed = list(pool.map(lambda path: _indexed(path, near), paths))
    for file, shard in zip(files, indexed, strict=True):
      count = len(shard.examples) - 1
      tables.append(np.stack([np.full(count, len(shards)), np.arange(count)], axis=1))
      orders.append(hash_order(file, count))
      shards.append(shard)
    return np.concatenate(tables)[np.argsort(np.concatenate(orders), kind="stable")]

  table = np.concatenate(take(split, examples, f"webdataset:{where}"))
  return WebDataset(f"webdataset:{where}[{split}]", shards, table)


class WebDataset(Source):
  """Examples of shards, each read when asked for. `table` [examples, 2]: shard, example in it."""

  def __init__(self, name: str, shards: list[Shard], table: np.ndarray):
    self.name, self.shards, self.table, self.class_names = name, shards, table, {}
    self.fingerprint = f"{name} 2 {stamp(shard.path for shard in shards)}"
    errors = {(n, example): error for n, shard in enumerate(shards) for example, error in shard.errors.items()}
    indices = np.flatnonzero(np.isin(table[:, 0], [number for number, _ in errors])).tolist() if errors else []
    error_at = {index: errors.get(tuple(table[index].tolist())) for index in indices}
    self.broken = {index: f"{self.where(index)}: {error}" for index, error in error_at.items() if error is not None}
    self.remotes = [copies.remote(shard.path) if is_remote(shard.path) else None for shard in shards]
    sizes = [remote.size for remote in self.remotes if remote is not None]
    if sizes:
      self.blocks, self.reads_ahead = table[:, 0], True
      self.lanes = max(1, HELD // (2 * max(sizes)))

  def __len__(self) -> int:
    return len(self.table)

  def __getitem__(self, index: int) -> dict[str, Any]:
    if index in self.broken:
      raise BadRecord(self.broken[index])
    shard, members = self._members(index)
    key = _key(members[0].name)
    content: dict[str, bytes] = {}
    try:
      for member, part in zip(members, self._parts(index, members), strict=True):
        if len(part) < member.size:
          raise UserError(f"{shard.path} became shorter: {member.name!r} is cut off. Fetch it again.")
        content[_ending(member)] = part
    except OSError as error:
      raise UserError(f"{shard.path} cannot be read: {error.strerror or error}.") from error
    return {"__key__": key, **_fields(content, self.where(index))}

  def where(self, index: int) -> str:
    shard, members = self._members(index)
    return f"{shard.path}, key {_key(members[0].name)!r} at byte {members[0].start}"

  def fetch(self, block: int) -> None:
    remote = self.remotes[block]
    if remote is not None and remote.size <= copies.limit():
      copies.fetched(remote)

  def _parts(self, index: int, members: list[Member]) -> list[bytes]:
    """Contents of members, from the local copy of a remote shard if there is one."""
    number = int(self.table[index, 0])
    remote = self.remotes[number]
    copy = None if remote is None else copies.ready(remote)
    if copy is not None:
      with contextlib.suppress(FileNotFoundError):  # Others may need its space.
        return _parts(copy, members)
    return _parts(self.shards[number].path, members)

  def _members(self, index: int) -> tuple[Shard, list[Member]]:
    number, example = self.table[index].tolist()
    shard = self.shards[number]
    first, end = shard.examples[example : example + 2].tolist()
    return shard, [Member(shard.names[i], *shard.places[i].tolist()) for i in range(first, end)]


def _parts(path: Place, members: list[Member]) -> list[bytes]:
  """Contents of members, in one read where they are adjacent, as those of an example mostly are."""
  start, end = min(member.start for member in members), max(member.start + member.size for member in members)
  if end - start > sum(member.size + _BETWEEN for member in members):
    return [read_part(path, member.start, member.size) for member in members]
  content = read_part(path, start, end - start)
  return [content[member.start - start : member.start - start + member.size] for member in members]


def _fields(content: Mapping[str, bytes], what: str) -> dict[str, Any]:
  """ending -> content of an example's members, under the names that all sources use for such content."""
  fields: dict[str, Any] = {}
  texts: list[str] = []
  for ending, value in content.items():
    try:
      if ending in IMAGES:
        fields["image"] = value
      elif ending in SOUNDS:
        fields["audio"] = value
      elif ending in TEXTS:
        texts.append(value.decode("utf-8-sig"))
      elif ending == "cls":
        fields["label"] = int(value)
      elif ending != "json":
        fields[ending] = value
    except ValueError as error:
      raise BadRecord(f"{what}: its .{ending} cannot be read ({error}).") from error
  if texts:
    fields["text"] = texts if len(texts) > 1 else texts[0]
  if "json" in content:
    described = json_value(content["json"], f"{what}: its .json")
    fields = {**described, **fields} if isinstance(described, dict) else {**fields, "json": described}
  return fields


def _indexed(path: Place, near: bool) -> Shard:
  """The members of a shard, from the cache folder if it was listed before; near: a local copy is made to list it."""
  key = hashlib.blake2b(f"webdataset 2 {stamp([path])}".encode(), digest_size=16).hexdigest()
  folder = made_once(
    cache_folder() / "tar" / key, lambda folder: _write_index(path, copies.nearby(path) if near else path, folder)
  )
  names, errors = json.loads((folder / "names.json").read_text())
  arrays = (np.load(folder / f"{name}.npy") for name in ("places", "examples"))
  return Shard(path, names, *arrays, {example: error for example, error in errors})


def _write_index(path: Place, place: Place, folder: Path) -> None:
  """Lists the shard `path`, which is read at `place`."""
  groups: dict[str, list[Member]] = {}
  for member in _listed(path, place):
    groups.setdefault(_key(member.name), []).append(member)
  if not groups:
    raise UserError(f"{path} holds no file. Remove it, or fetch it again.")
  last = max((member for group in groups.values() for member in group), key=lambda item: item.start + item.size)
  if last.start + last.size > status(place)[0]:
    raise UserError(f"{path} is truncated: {last.name!r} is cut off. Fetch it again.")
  examples = list(_without_loose(groups).values())
  if not examples:
    raise UserError(f"{path} holds no example. Members of one key and different endings are one: 0.png, 0.txt.")
  errors = [(number, error) for number, group in enumerate(examples) if (error := _doubled(group)) is not None]
  listed = [member for group in examples for member in group]
  (folder / "names.json").write_text(json.dumps([[member.name for member in listed], errors]))
  np.save(folder / "places.npy", np.array([(member.start, member.size) for member in listed], np.int64))
  np.save(folder / "examples.npy", np.cumsum([0, *map(len, examples)]))


def _listed(path: Place, place: Place) -> Iterable[Member]:
  """The files in a tar file, less hidden ones."""
  members: dict[str, Member] = {}
  try:
    with opened(place) as file, tarfile.open(fileobj=file, mode="r:") as tar:
      for entry in tar:
        name = entry.name.removeprefix("./")
        if entry.islnk() and entry.linkname in members:  # A second name of a file that came before.
          member = members[entry.linkname]._replace(name=name)
        elif entry.isreg() and not entry.issparse():
          member = Member(name, entry.offset_data, entry.size)
        else:
          continue
        members[entry.name] = member
        if not is_hidden(name):
          yield member
  except (tarfile.TarError, EOFError, OSError) as error:
    raise UserError(
      f"{path} is no whole, uncompressed tar file ({error}). Fetch it again, or decompress it."
    ) from error


def _without_loose(groups: Mapping[str, list[Member]]) -> dict[str, list[Member]]:
  """The groups of members that are examples, without stray files."""
  groups = {key: group for key, group in groups.items() if "." in group[0].name.rpartition("/")[2]}
  holding = lambda kinds: {key for key, group in groups.items() if any(_ending(member) in kinds for member in group)}
  example_keys = holding((*IMAGES, *SOUNDS)) or holding((*TEXTS, "json"))
  forms = {_form(key) for key in example_keys}

  def loose(key: str) -> bool:
    if not example_keys or key in example_keys:
      return False
    return _ABOUT.fullmatch(key.rpartition("/")[2]) is not None or _form(key) not in forms

  return {key: group for key, group in groups.items() if not loose(key)}


def _form(key: str) -> str:
  """The shape of a key, without its numbers and names: `part/00012` and `part/7` are `a/0`."""
  return re.sub(r"[^\W\d]+", "a", re.sub(r"\d+", "0", key))


def _doubled(group: list[Member]) -> str | None:
  """Describes members of one key with the same ending; None if there are none."""
  endings: dict[str, Member] = {}
  for member in group:
    ending = "image" if _ending(member) in IMAGES else _ending(member)
    if ending in endings:
      first = endings[ending]
      return (
        f"{first.name!r} at byte {first.start} and {member.name!r} at byte {member.start} are members of one key. "
        "Give each example a key of its own."
      )
    endings[ending] = member
  return None


def _ending(member: Member) -> str:
  return member.name.removeprefix(f"{_key(member.name)}.").lower()


def _key(name: str) -> str:
  """The key of an example's members: the path up to the first dot of the file's name."""
  folder, slash, file = name.rpartition("/")
  return folder + slash + file.partition(".")[0]
