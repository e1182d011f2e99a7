"""Shards of examples, listed on opening or, if their counts are known, on first access."""

import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from zoo.data.sources import copies
from zoo.data.sources.files import StoragePath
from zoo.data.sources.tar_index import Shard, listed_shard
from zoo.errors import UserError
from zoo.json_files import parse_json
from zoo.progress import progress
from zoo.storage import is_remote

SIZES = "sizes.json"


class Shards:
  """Tar files by index: `shards[n]` lists shard n on first access.

  Attributes:
    paths: the files.
    remotes: their remote versions, None for local ones.
  """

  def __init__(self):
    self.paths: list[StoragePath] = []
    self.remotes: list[copies.Remote | None] = []
    self._counts: dict[int, int] = {}  # For shards that are not listed yet.
    self._listed: dict[int, Shard] = {}
    self._near = True

  def add(self, folder: StoragePath, files: list[str]) -> list[tuple[int, int]]:
    """Adds files of a folder -> index and number of examples of each."""
    first, paths = len(self.paths), [folder / file for file in files]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # For buckets most of the time is spent waiting.
      remotes = list(pool.map(copies.remote, paths)) if is_remote(folder) else []
      self.paths += paths
      self.remotes += remotes or [None] * len(paths)
      counts = counts_in(folder, files) if remotes else {}
      if counts:
        self._counts |= {first + number: counts[file] for number, file in enumerate(files)}
        return [(first + number, counts[file]) for number, file in enumerate(files)]
      self._near = sum(file.size for file in remotes) <= copies.limit() if remotes else True
      numbers, counted = range(first, len(self.paths)), []
      with progress(f"listing the shards in {folder}", len(numbers), "shards") as advance:
        for number, shard in zip(numbers, pool.map(self.__getitem__, numbers)):
          counted.append((number, len(shard.examples) - 1))
          advance(1)
      return counted

  def __getitem__(self, number: int) -> Shard:
    shard = self._listed.get(number)
    if shard is None:
      path, count = self.paths[number], self._counts.get(number)
      shard = listed_shard(path, lambda: copies.nearby(path) if self._near else path)
      if count is not None and count != len(shard.examples) - 1:
        has = len(shard.examples) - 1
        raise UserError(
          f"{path} holds {has} examples, and {count} by the {SIZES} or stats beside it. Repair or remove it."
        )
      self._listed[number] = shard
    return shard

  def errors(self) -> dict[tuple[int, int], str]:
    """(shard, example in it) -> error of an unusable example, for listed shards."""
    return {(n, example): error for n, shard in self._listed.items() for example, error in shard.errors.items()}


def counts_in(folder: StoragePath, files: Iterable[str]) -> dict[str, int]:
  """File -> number of examples, from metadata in the folder; {} unless it covers all files."""
  files = list(files)
  sizes = _object(folder / SIZES)
  counts = {file: sizes.get(file, sizes.get(os.path.basename(file))) for file in files}
  if not sizes:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
      stats = pool.map(lambda file: _object(folder / re.sub(r"\.tar$", "_stats.json", file)), files[:1])
      if next(stats, {}):
        stats = pool.map(lambda file: _object(folder / re.sub(r"\.tar$", "_stats.json", file)), files)
        counts = {file: about.get("successes") for file, about in zip(files, stats)}
  known = {file: count for file, count in counts.items() if isinstance(count, int) and count > 0}
  return known if len(known) == len(files) else {}


def _object(path: StoragePath) -> dict:
  """Reads a JSON object; {} if it is missing."""
  try:
    content = parse_json(path.read_bytes()) if path.is_file() else {}
  except (OSError, ValueError) as error:
    raise UserError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}.") from error
  return content if isinstance(content, dict) else {}
