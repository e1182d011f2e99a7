"""`webdataset:shards/*.tar`: tar files; members with one key (`0001.png`, `0001.txt`, `0001.json`) are an example.

A remote shard is copied to the cache folder, while training reads ahead or if all shards fit there; until
then its examples are read from the bucket one by one. Each host reads its own shards: see `zoo.data.block_order`. If
the folder has the number of examples of each shard, in `sizes.json` (name -> count) or img2dataset's
`00000_stats.json`, a shard is listed on first access; else all are when the source is opened.

A shard's index is stored in the cache folder; an example is then read at its offset in the file,
so access is random. Members' names are never used as paths. Shards may have the same keys; in one shard a key
is one example, also if its members are not adjacent, and a key with two images, or two members of one ending, is a bad
record.

Other files are ignored: hidden files, names without an extension (`README`), and in a
shard of images those without one whose names differ in form (`LICENSE.txt`, `index.json`); likewise in a shard of
texts.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.data.bad_records import BadRecord
from zoo.data.sources import Source, copies, file_fingerprint, json_value
from zoo.data.sources.files import StoragePath, read_part
from zoo.data.sources.shards import Shards
from zoo.data.sources.splits import files_of_split, hash_order, take
from zoo.data.sources.tar_index import IMAGES, SOUNDS, TEXTS, Member, Shard, ending_of, key_of
from zoo.errors import UserError

HELD = 2**35  # Bytes of remote shards that training reads concurrently, on all hosts together.
_BETWEEN = 2**14  # Gap between two members in bytes up to which both are read in one request.


def webdataset(where: str, split: str, data_dir: str | None = None) -> "WebDataset":
  """Opens uncompressed tar files."""
  shards = Shards()

  def examples(name: str) -> np.ndarray:
    folder, files = files_of_split(where, name, data_dir, (".tar",))
    tables, orders = [], []
    for file, (number, count) in zip(files, shards.add(folder, files), strict=True):
      tables.append(np.stack([np.full(count, number), np.arange(count)], axis=1))
      orders.append(hash_order(file, count))
    return np.concatenate(tables)[np.argsort(np.concatenate(orders), kind="stable")]

  table = np.concatenate(take(split, examples, f"webdataset:{where}"))
  return WebDataset(f"webdataset:{where}[{split}]", shards, table)


class WebDataset(Source):
  """Examples of shards, each read on access. `table` [examples, 2]: shard, example in it."""

  def __init__(self, name: str, shards: Shards, table: np.ndarray):
    self.name, self.shards, self.table, self.class_names = name, shards, table, {}
    self.fingerprint = f"{name} 2 {file_fingerprint(shards.paths)}"
    errors = shards.errors()
    indices = np.flatnonzero(np.isin(table[:, 0], [number for number, _ in errors])).tolist() if errors else []
    error_at = {index: errors.get(tuple(table[index].tolist())) for index in indices}
    self.broken = {index: f"{self.where(index)}: {error}" for index, error in error_at.items() if error is not None}
    sizes = [remote.size for remote in shards.remotes if remote is not None]
    if sizes:
      self.blocks, self.reads_ahead = table[:, 0], True
      self.lanes = max(1, HELD // (2 * max(sizes)))

  def __len__(self) -> int:
    return len(self.table)

  def __getitem__(self, index: int) -> dict[str, Any]:
    if index in self.broken:
      raise BadRecord(self.broken[index])
    shard, members = self._members(index)
    error = shard.errors.get(int(self.table[index, 1]))
    if error is not None:
      raise BadRecord(f"{self.where(index)}: {error}")
    key = key_of(members[0].name)
    content: dict[str, bytes] = {}
    try:
      for member, part in zip(members, self._parts(index, members), strict=True):
        if len(part) < member.size:
          raise UserError(f"{shard.path} became shorter: {member.name!r} is cut off. Fetch it again.")
        content[ending_of(member)] = part
    except OSError as error:
      raise UserError(f"{shard.path} cannot be read: {error.strerror or error}.") from error
    return {"__key__": key, **_fields(content, self.where(index))}

  def where(self, index: int) -> str:
    shard, members = self._members(index)
    return f"{shard.path}, key {key_of(members[0].name)!r} at byte {members[0].start}"

  def fetch(self, block: int) -> None:
    remote = self.shards.remotes[block]
    if remote is not None and remote.size <= copies.limit():
      copies.fetched(remote)
      self.shards[block]  # Lists the shard.

  def _parts(self, index: int, members: list[Member]) -> list[bytes]:
    """Contents of members, from the local copy of a remote shard if there is one."""
    number = int(self.table[index, 0])
    remote = self.shards.remotes[number]
    copy = None if remote is None else copies.ready(remote)
    if copy is not None:
      with contextlib.suppress(FileNotFoundError):  # Its space may be needed by others.
        return _parts(copy, members)
    return _parts(self.shards.paths[number], members)

  def _members(self, index: int) -> tuple[Shard, list[Member]]:
    number, example = self.table[index].tolist()
    shard = self.shards[number]
    first, end = shard.examples[example : example + 2].tolist()
    return shard, [Member(shard.names[i], *shard.places[i].tolist()) for i in range(first, end)]


def _parts(path: StoragePath, members: list[Member]) -> list[bytes]:
  """Contents of members, in one read if they are adjacent, as is usual within an example."""
  start, end = min(member.start for member in members), max(member.start + member.size for member in members)
  if end - start > sum(member.size + _BETWEEN for member in members):
    return [read_part(path, member.start, member.size) for member in members]
  content = read_part(path, start, end - start)
  return [content[member.start - start : member.start - start + member.size] for member in members]


def _fields(content: Mapping[str, bytes], what: str) -> dict[str, Any]:
  """Renames contents of an example's members by extension to the field names of all sources."""
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
