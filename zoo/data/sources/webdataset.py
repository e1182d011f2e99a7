"""`webdataset:shards/*.tar`: tar files whose members of one key (`0001.png`, `0001.txt`, `0001.json`) are one example.

A shard's members are listed once and remembered in the cache folder; an example is then read at its place in the file,
so examples come in any order. Members' names are never used as paths.
"""

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo.data.cache import cache_folder, made_once
from zoo.data.sources import Source, stamp
from zoo.data.sources.splits import files_of_split, hash_order, take
from zoo.errors import UserError

IMAGES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "img", "image")
TEXTS = ("txt", "text", "caption")


class Shard(NamedTuple):
  """The members of a tar file, those of an example next to each other: `examples[e]` is its first member."""

  path: Path
  names: list[str]  # [members] key.ending
  places: np.ndarray  # [members, 2] first byte, size
  examples: np.ndarray  # [examples + 1]


def webdataset(where: str, split: str, data_dir: str | None = None) -> "WebDataset":
  """Opens uncompressed tar files."""
  shards: list[Shard] = []

  def examples(name: str) -> np.ndarray:
    folder, found = files_of_split(where, name, data_dir, (".tar",))
    tables, orders = [], []
    for file in found:
      shard = _indexed(folder / file)
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
    self.fingerprint = f"{name} {stamp(shard.path for shard in shards)}"

  def __len__(self) -> int:
    return len(self.table)

  def __getitem__(self, index: int) -> dict[str, Any]:
    number, example = self.table[index].tolist()
    shard = self.shards[number]
    members = range(shard.examples[example], shard.examples[example + 1])
    key = _key(shard.names[members[0]])
    record: dict[str, Any] = {"__key__": key}
    try:
      with open(shard.path, "rb") as file:
        for member in members:
          start, size = shard.places[member].tolist()
          file.seek(start)
          content = file.read(size)
          if len(content) < size:
            raise UserError(f"{shard.path} became shorter: {shard.names[member]!r} is cut off. Fetch it again.")
          _add(record, shard.names[member].removeprefix(f"{key}.").lower(), content, f"{shard.path}, {key!r}")
    except OSError as error:
      raise UserError(f"{shard.path} cannot be read: {error.strerror or error}.") from error
    return record


def _add(record: dict[str, Any], ending: str, content: bytes, what: str) -> None:
  """Puts a member into its example under the name that all sources use for such content."""
  try:
    if ending in IMAGES:
      record["image"] = content
    elif ending in TEXTS:
      record["text"] = content.decode("utf-8-sig")
    elif ending == "cls":
      record["label"] = int(content)
    elif ending == "json":
      fields = json.loads(content)
      record |= {**fields, **record} if isinstance(fields, dict) else {"json": fields}
    else:
      record[ending] = content
  except ValueError as error:
    raise UserError(f"{what}: its .{ending} cannot be read ({error}).") from error


def _indexed(path: Path) -> Shard:
  """The members of a shard, from the cache folder if it was listed before."""
  key = hashlib.blake2b(f"webdataset 1 {stamp([path])}".encode(), digest_size=16).hexdigest()
  folder = made_once(cache_folder() / "tar" / key, lambda folder: _write_index(path, folder))
  names = (folder / "names.txt").read_text("utf-8", "surrogateescape").split("\n")
  return Shard(path, names, np.load(folder / "places.npy"), np.load(folder / "examples.npy"))


def _write_index(path: Path, folder: Path) -> None:
  members: dict[str, list[tuple[str, int, int]]] = {}
  try:
    with tarfile.open(path, "r:") as tar:
      for member in tar:
        if member.isreg() and "\n" not in member.name:
          members.setdefault(_key(member.name), []).append((member.name, member.offset_data, member.size))
  except (tarfile.TarError, EOFError, OSError) as error:
    raise UserError(
      f"{path} is no whole, uncompressed tar file ({error}). Fetch it again, or decompress it."
    ) from error
  listed = [member for group in members.values() for member in group]
  if not listed:
    raise UserError(f"{path} holds no file. Remove it, or fetch it again.")
  name, start, size = max(listed, key=lambda member: member[1] + member[2])
  if start + size > path.stat().st_size:
    raise UserError(f"{path} is truncated: {name!r} is cut off. Fetch it again.")
  (folder / "names.txt").write_text("\n".join(name for name, _, _ in listed), "utf-8", "surrogateescape")
  np.save(folder / "places.npy", np.array([(start, size) for _, start, size in listed], np.int64))
  np.save(folder / "examples.npy", np.cumsum([0, *(len(group) for group in members.values())]))


def _key(name: str) -> str:
  """What the members of an example share: the path up to the first dot of the file's name."""
  folder, slash, file = name.rpartition("/")
  return folder + slash + file.partition(".")[0]
