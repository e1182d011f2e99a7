"""`images:FOLDER`: image files with captions, or in class folders.

Captions come from a table in the folder, `captions.jsonl`, `captions.csv`, `metadata.jsonl` or `metadata.csv` (a row an
image: `file` or `file_name`, `text`, other fields; several rows of one image are its captions, and an image
without a row is left out), else from a file beside each image, of the same name: .txt (one caption per line) or
.json (an object of fields). If there is neither for any image, its subfolder is its class: `label`,
and in words `text`; other files are ignored.
"""

import csv
import io
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from zoo.data.bad_records import BadRecord, utf8
from zoo.data.images.files import ENDINGS
from zoo.data.sources import Source, json_object, read_file
from zoo.data.sources.files import StoragePath, at, listed
from zoo.data.sources.splits import (
  SPLIT_FOLDERS,
  by_hash,
  files_of_split,
  folder_of_split,
  is_hidden,
  take,
)
from zoo.errors import UserError, shown

TABLES = ("captions.jsonl", "captions.csv", "metadata.jsonl", "metadata.csv")
FILE_FIELDS = ("file", "file_name", "filename", "image_name")  # The second is the name in the hub's datasets.
BESIDE = (".txt", ".json")


class Entry(NamedTuple):
  """An image file and its fields."""

  path: str
  fields: dict[str, Any] | None = None  # None: in a file beside it.
  error: str | None = None  # Error of an unusable entry.


def images(where: str, split: str, data_dir: str | None = None) -> "ImageFiles":
  """Opens a folder of images; it is listed now, and files are read on access."""
  classes: list[str] = []
  labels: set[str] = set()

  def entries(name: str) -> list[Entry]:
    folder, pattern = folder_of_split(where, name, data_dir)
    if not pattern and (table := _table(folder)) is not None:
      rows, errors = read_table(table, folder)
      if _labels(rows.values()):
        labels.update(
          label
          for table_path in _tables(folder)
          for label in _labels(read_table(table_path, table_path.parent)[0].values())
        )
      broken = {f"{table.name} line {number}": error for number, error in errors.items()}
      return [Entry(str(folder / name), rows.get(name), broken.get(name)) for name in by_hash([*rows, *broken])]
    _, files = files_of_split(where, name, data_dir, (*ENDINGS, *BESIDE))
    pictures = by_hash(file for file in files if file.lower().endswith(ENDINGS))
    if not pictures:
      raise UserError(f"images:{where} has no images for split '{name}'. Image files end in {', '.join(ENDINGS)}.")
    beside = {os.path.splitext(file)[0] for file in files if file.endswith(BESIDE)}
    captioned = any(os.path.splitext(file)[0] in beside for file in pictures)
    if not captioned and any(os.sep in file for file in pictures):
      classes[:] = sorted(
        {*classes, *_class_folders(folder), *(file.split(os.sep)[0] for file in pictures if os.sep in file)}
      )
      return [_in_class(folder, file) for file in pictures]
    return [_with_file(folder, file, os.path.splitext(file)[0] in beside) for file in pictures]

  chosen = [entry for part in take(split, entries, f"images:{where}") for entry in part]
  return ImageFiles(f"images:{where}[{split}]", chosen, classes, sorted(labels))


class ImageFiles(Source):
  """Image files with their fields.

  Args:
    name: its name in messages.
    entries: path and fields of each image.
    classes: names of class folders, if those are the labels.
    labels: str labels of the table.
  """

  def __init__(self, name: str, entries: list[Entry], classes: list[str], labels: list[str]):
    self.name, self.entries = name, entries
    self.class_names = {"label": classes or labels} if classes or labels else {}
    self.numbers = {label: number for number, label in enumerate(classes)}
    self.broken = {index: entry.error for index, entry in enumerate(entries) if entry.error is not None}

  def __len__(self) -> int:
    return len(self.entries)

  def __getitem__(self, index: int) -> dict[str, Any]:
    if index in self.broken:
      raise BadRecord(self.broken[index])
    path, fields, _ = self.entries[index]
    record: dict[str, Any] = {"image": read_file(path), **(_beside(at(path)) if fields is None else fields)}
    if self.numbers:
      label = record.pop("class")
      record |= {"label": self.numbers[label], "text": label.replace("_", " ")}
    return {**record, "path": path}

  def where(self, index: int) -> str:
    return self.entries[index].path


def _in_class(folder: StoragePath, file: str) -> Entry:
  """An image in the folder of its class."""
  path, (name, *inside) = str(folder / file), file.split(os.sep)
  return (
    Entry(path, {"class": name}) if inside else Entry(path, {}, f"{path} is not in a class folder. Move it into one.")
  )


def _with_file(folder: StoragePath, file: str, is_there: bool) -> Entry:
  """An image with a file of its name beside it."""
  path, stem = str(folder / file), os.path.splitext(os.path.basename(file))[0]
  error = f"{path} has no caption: there is neither {stem}.txt nor {stem}.json beside it."
  return Entry(path, None, None if is_there else error)


def _beside(image: StoragePath) -> dict[str, Any]:
  """Fields from the .txt and .json beside an image."""
  fields: dict[str, Any] = {}
  if image.with_suffix(".json").is_file():
    fields |= json_object(read_file(image.with_suffix(".json")), str(image.with_suffix(".json")))
  caption = image.with_suffix(".txt")
  if caption.is_file():
    lines = io.StringIO(utf8(read_file(caption), str(caption)), newline=None)
    fields["text"] = [line.rstrip("\n") for line in lines if line.strip()]
  return fields


def _table(folder: StoragePath) -> StoragePath | None:
  """The table of a folder: inside it, or, for a split's folder, beside it."""
  folders = [folder, folder.parent] if folder.name in SPLIT_FOLDERS else [folder]
  return next(
    (folder_path / name for folder_path in folders for name in TABLES if (folder_path / name).is_file()), None
  )


def _tables(folder: StoragePath) -> list[StoragePath]:
  """The tables of this split and of the others, so that a label has the same index in all."""
  siblings = [folder.parent / name for name in SPLIT_FOLDERS] if folder.name in SPLIT_FOLDERS else []
  return list(
    filter(
      None, dict.fromkeys(map(_table, [folder, *(folder_path for folder_path in siblings if folder_path.is_dir())]))
    )
  )


def read_table(table: StoragePath, folder: StoragePath) -> tuple[dict[str, dict[str, Any]], dict[int, str]]:
  """Reads a table -> fields by image path in `folder`, and errors by line of unusable rows.

  A field in which several rows of one image differ is a list.
  """
  rows: dict[str, list[dict[str, Any]]] = {}
  errors: dict[int, str] = {}
  for number, content in _lines(table):
    try:
      row = content if isinstance(content, dict) else json_object(content, f"{table} line {number}")
      file, fields = _row(table, number, row)
    except BadRecord as error:
      errors[number] = str(error)
      continue
    inside = os.path.relpath(table.parent / file, folder)
    if inside.split(os.sep)[0] != os.pardir:  # Else it belongs to another split.
      rows.setdefault(inside, []).append(fields)
  if not rows and not errors:
    raise UserError(f"{table} names no image in {folder}.")
  return {file: _joined(several) for file, several in rows.items()}, errors


def _joined(rows: list[dict[str, Any]]) -> dict[str, Any]:
  if len(rows) == 1:
    return rows[0]
  joined = {}
  for key in dict.fromkeys(key for row in rows for key in row):
    values = [row[key] for row in rows if key in row]
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    joined[key] = values[0] if all(value == values[0] for value in values) else flat
  return joined


def _labels(rows: Iterable[dict[str, Any]]) -> list[str]:
  labels = [row.get("label") for row in rows]
  return [label for label in labels if isinstance(label, str) and not label.strip().isdecimal()]


def _lines(table: StoragePath) -> list[tuple[int, bytes | dict[str, Any]]]:
  """The rows of a table of captions, unparsed for .jsonl, with their line numbers."""
  content = read_file(table)
  if table.suffix == ".jsonl":
    return [(number, line) for number, line in enumerate(content.split(b"\n"), start=1) if line.strip()]
  try:
    reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
    names = reader.fieldnames or []
    if (doubled := next((name for name in names if names.count(name) > 1), None)) is not None:
      raise UserError(f"{table} has the column {shown(doubled)} twice. Rename one of them.")
    return [(reader.line_num, row) for row in reader]
  except (UnicodeDecodeError, csv.Error) as error:
    why = "a quote is never closed" if "end of data" in str(error) else error
    raise UserError(f"{table} cannot be read: {why}. Double the quotes within a text.") from error


def _row(table: StoragePath, number: int, row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
  """The image that a row names, relative to the table, and the row's other fields."""
  if None in row:  # csv's key for fields after the last column.
    raise BadRecord(f"{table} line {number} has more fields than there are columns. Quote fields that contain commas.")
  field = next((name for name in FILE_FIELDS if isinstance(row.get(name), str) and row[name]), None)
  if field is None:
    names = shown(", ".join(map(str, row)), 200).strip("'")
    raise BadRecord(f"{table} line {number} names no image in a field 'file' or 'file_name'. Its fields: {names}.")
  path = os.path.normpath(row[field])
  if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir:
    raise BadRecord(
      f"{table} line {number}: {shown(row[field])} is outside {table.parent}. Move the image into the folder."
    )
  return path, {key: value for key, value in row.items() if key not in (field, None)}


def _class_folders(folder: StoragePath) -> list[str]:
  """Names of subfolders with images, of all splits, so that a class has the same index in all."""
  siblings = [folder.parent / name for name in SPLIT_FOLDERS] if folder.name in SPLIT_FOLDERS else []
  folders = [
    path
    for split_folder in (folder, *siblings)
    if split_folder.is_dir()
    for path in split_folder.iterdir()
    if path.is_dir()
  ]
  return [path.name for path in folders if not is_hidden(path.name) and _holds_image(path)]


def _holds_image(folder: StoragePath) -> bool:
  return any(file.lower().endswith(ENDINGS) and not is_hidden(file) for file in listed(folder))
