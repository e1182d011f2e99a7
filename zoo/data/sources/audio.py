"""`audio:FOLDER`, `audio:MANIFEST`: recordings (wav, flac, ogg, mp3) with texts, or in class folders.

Texts come from a manifest, a table that names files (`file`, `file_name`, `path`, `audio_filepath`, ...): .csv, .tsv or
.jsonl, given directly or as `metadata.csv` or `metadata.jsonl` in the folder; else from LibriSpeech's `*.trans.txt`,
else from a .txt beside each recording. If there is none of these, the subfolder of a recording is its class.
"""

import os
from typing import Any

import numpy as np

from zoo.data.bad_records import BadRecord, utf8
from zoo.data.sources import Source, open_source, read_file
from zoo.data.sources.delimited import OPTIONS
from zoo.data.sources.files import StoragePath, at, listed
from zoo.data.sources.options import split_options
from zoo.data.sources.splits import SPLIT_FOLDERS, by_hash, files_of_split, folder_of_split, is_hidden, take
from zoo.errors import UserError, shown

ENDINGS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3")
MANIFESTS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
TABLES = ("metadata.csv", "metadata.jsonl", "metadata.tsv", "captions.csv", "captions.jsonl")
FILE_FIELDS = ("file", "file_name", "filename", "audio_filepath", "audio_file", "audio", "path", "wav")
FOLDERS = ("", "clips", "wavs", "audio", "wav")  # Subfolders of a manifest's files: Common Voice, LJ Speech.
SPOKEN = ".trans.txt"


def audio(where: str, split: str, data_dir: str | None = None) -> "AudioFiles":
  """Opens recordings. Each example: `audio` (the bytes of the file), the other fields of its row, `path`.

  Args:
    where: a folder, or a manifest with the options of its kind: `audio:metadata.csv?delimiter=|&columns=file,raw,text`.
    split: in TFDS's split syntax.
    data_dir: base folder of relative paths.
  """
  place, options = split_options(where, OPTIONS)
  parts: list[Part] = []

  def rows(name: str) -> np.ndarray:
    opened = _manifests(place, name, data_dir, where[len(place) :])
    if not opened:
      if options:
        raise UserError(f"audio:{where} is not a manifest. Leave out {where[len(place) :]}, or name the manifest.")
      opened = [_listing(place, name, data_dir)]
    first = len(parts)
    parts.extend(opened)
    tables = [
      np.stack([np.full(len(part.table), first + number), np.arange(len(part.table))], axis=1)
      for number, part in enumerate(opened)
    ]
    return np.concatenate(tables)

  chosen = np.concatenate(take(split, rows, f"audio:{where}"))
  return AudioFiles(f"audio:{where}[{split}]", parts, chosen)


class Listing(Source):
  """The recordings of a folder: file names and fields; None: the text is in the .txt beside it."""

  def __init__(
    self, folder: StoragePath, files: list[str], fields: dict[str, dict[str, Any]] | None, classes: list[str]
  ):
    self.name, self.folder, self.files, self.fields = f"audio:{folder}", folder, files, fields
    self.class_names = {"label": classes} if classes else {}

  def __len__(self) -> int:
    return len(self.files)

  def __getitem__(self, index: int) -> dict[str, Any]:
    file = self.files[index]
    if self.fields is None:
      path = f"{os.path.splitext(self.folder / file)[0]}.txt"
      try:
        return {"file": file, "text": read_file(path).decode("utf-8-sig").strip()}
      except UnicodeDecodeError as error:
        raise BadRecord(f"{path} is not UTF-8: {error.reason} at byte {error.start}.") from error
    if file not in self.fields:
      raise BadRecord(f"{self.folder / file} has no text in the {SPOKEN} of its folder, or lies in no class's folder.")
    return {"file": file, **self.fields[file]}

  def where(self, index: int) -> str:
    return str(self.folder / self.files[index])


class Part:
  """A table of recordings, and the mapping of its names to paths."""

  def __init__(self, table: Source, base: StoragePath):
    self.table, self.base = table, base
    self.inside, self.ending, self.field = "", "", "file"
    if isinstance(table, Listing):
      return
    record = next((table[i] for i in range(len(table)) if i not in table.broken), {})
    field = next((name for name in FILE_FIELDS if isinstance(record.get(name), str)), None)
    if field is None:
      raise UserError(
        f"{table.name} names no files: none of its columns is one of {', '.join(FILE_FIELDS)}. It has: "
        f"{', '.join(record)}.{table.hint}"
      )
    self.field = field
    name = record[field]
    endings = ("",) if name.lower().endswith(ENDINGS) else ("", *ENDINGS)
    places = [(folder, ending) for folder in FOLDERS for ending in endings]
    exists = lambda folder, ending: (base / folder / f"{name}{ending}").is_file()
    self.inside, self.ending = next((place for place in places if exists(*place)), ("", ""))

  def path(self, name: Any, what: str) -> str:
    """The path of a file; BadRecord if it is outside of the folder or missing."""
    if not isinstance(name, str) or not name.strip():
      raise BadRecord(f"{what} names no file in '{self.field}'.")
    path = os.path.normpath(os.path.relpath(name, self.base) if os.path.isabs(name) else name)
    if path.split(os.sep)[0] == os.pardir or os.path.isabs(path):
      raise BadRecord(f"{what}: {shown(name)} lies outside {self.base}. Move the recording into the folder.")
    return str(self.base / self.inside / f"{path}{self.ending}")


class AudioFiles(Source):
  """Recordings, each read on access. `chosen` [rows, 2]: part, row of its table."""

  def __init__(self, name: str, parts: list[Part], chosen: np.ndarray):
    self.name, self.parts, self.chosen = name, parts, chosen
    self.class_names = next((part.table.class_names for part in parts if part.table.class_names), {})
    self.hint = next((part.table.hint for part in parts), "")
    broken = {(number, row): error for number, part in enumerate(parts) for row, error in part.table.broken.items()}
    places = enumerate(map(tuple, chosen.tolist())) if broken else ()
    self.broken = {index: broken[place] for index, place in places if place in broken}

  def __len__(self) -> int:
    return len(self.chosen)

  def __getitem__(self, index: int) -> dict[str, Any]:
    number, row = self.chosen[index].tolist()
    part = self.parts[number]
    record = dict(part.table[row])
    path = part.path(record.pop(part.field, None), self.where(index))
    return {"audio": read_file(path), **record, "path": path}

  def where(self, index: int) -> str:
    number, row = self.chosen[index].tolist()
    return self.parts[number].table.where(row)


def _manifests(place: str, name: str, data_dir: str | None, options: str) -> list[Part]:
  """The manifests of a split; [] if there are none."""
  folder, pattern = folder_of_split(place, name, data_dir)
  if pattern.lower().endswith(tuple(MANIFESTS)):
    tables = [folder / file for file in files_of_split(place, name, data_dir, tuple(MANIFESTS))[1]]
  else:
    tables = [folder / table for table in TABLES if not pattern and (folder / table).is_file()][:1]
  kind = lambda table: MANIFESTS[os.path.splitext(table.name)[1].lower()]
  return [Part(open_source(f"{kind(table)}:{table}{options}"), table.parent) for table in tables]


def _listing(place: str, name: str, data_dir: str | None) -> Part:
  """The recordings of a folder without a manifest."""
  folder, files = files_of_split(place, name, data_dir, (*ENDINGS, ".txt"))
  sounds = by_hash(file for file in files if file.lower().endswith(ENDINGS))
  if not sounds:
    raise UserError(f"audio:{place} has no recordings for split '{name}'. Recordings end in {', '.join(ENDINGS)}.")
  everything = files if any(file.endswith(".txt") for file in files) else list(listed(folder))
  spoken = [file for file in everything if file.endswith(SPOKEN)]
  if spoken:
    return Part(Listing(folder, sounds, _spoken(folder, spoken, sounds), []), folder)
  beside = {os.path.splitext(file)[0] for file in everything if file.endswith(".txt")}
  if any(os.path.splitext(file)[0] in beside for file in sounds):
    return Part(Listing(folder, sounds, None, []), folder)
  inside = {file: file.split(os.sep)[0] for file in sounds if os.sep in file}
  if not inside:
    raise UserError(
      f"{folder} holds recordings without texts: no metadata.csv (file_name,text), no .txt beside them, no subfolder "
      "that names their class."
    )
  classes = sorted({*inside.values(), *_class_folders(folder)})
  fields = {file: {"label": classes.index(label), "text": label.replace("_", " ")} for file, label in inside.items()}
  return Part(Listing(folder, sounds, fields, classes), folder)


def _spoken(folder: StoragePath, tables: list[str], sounds: list[str]) -> dict[str, dict[str, Any]]:
  """Transcripts from LibriSpeech's tables, with lines like `84-121123-0000 GO DO YOU HEAR`."""
  paths = {os.path.splitext(file)[0]: file for file in sounds}
  fields = {}
  for table in tables:
    for line in utf8(read_file(folder / table), str(folder / table)).splitlines():
      key, _, text = line.strip().partition(" ")
      file = paths.get(os.path.join(os.path.dirname(table), key))
      if file is not None:
        fields[file] = {"text": text.strip()}
  return fields


def _class_folders(folder: StoragePath) -> set[str]:
  """Names of the class folders of other splits, so that a class has the same index in all."""
  siblings = [folder.parent / name for name in SPLIT_FOLDERS] if folder.name in SPLIT_FOLDERS else []
  return {
    file.split(os.sep)[0]
    for sibling in siblings
    if sibling.is_dir()
    for file in listed(at(sibling))
    if os.sep in file and file.lower().endswith(ENDINGS) and not is_hidden(file)
  }
