"""`images:FOLDER`: image files with captions, or in folders that name their classes.

Captions come from `captions.jsonl` or `captions.csv` in the folder (a row an image: `file`, `text`, other fields), else
from
a file beside each image, of the same name: .txt (a caption a line) or .json (an object of fields). Where there are
none, the
subfolder that an image lies in is its class: `label`, and as words `text`.
"""

import csv
import json
import os
from pathlib import Path
from typing import Any

from zoo.data.sources import Source, read_file
from zoo.data.sources.splits import SPLIT_FOLDERS, by_hash, files_of_split, folder_of_split, take
from zoo.errors import UserError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
TABLES = ("captions.jsonl", "captions.csv")

Entry = tuple[str, dict[str, Any] | None]  # path of an image; its fields, None if they are in a file beside it


def images(where: str, split: str, data_dir: str | None = None) -> "ImageFiles":
  """Opens a folder of images. What there is is listed now; files are read when they are asked for."""
  classes: list[str] = []

  def entries(name: str) -> list[Entry]:
    folder, pattern = folder_of_split(where, name, data_dir)
    table = next((folder / file for file in TABLES if (folder / file).is_file()), None)
    if table is not None and not pattern:
      rows = dict(_row(folder, table, number, row) for number, row in _rows(table))
      return [(str(folder / file), rows[file]) for file in by_hash(rows)]
    _, found = files_of_split(where, name, data_dir, (*ENDINGS, ".txt", ".json"))
    pictures = [file for file in found if file.lower().endswith(ENDINGS)]
    if not pictures:
      raise UserError(f"images:{where} holds no image ({', '.join(ENDINGS)}) for split '{name}'.")
    if len(pictures) == len(found) and all(os.sep in file for file in pictures):
      classes[:] = sorted({*classes, *_class_folders(folder), *(file.split(os.sep)[0] for file in pictures)})
    return [(str(folder / file), {"class": file.split(os.sep)[0]} if classes else None) for file in by_hash(pictures)]

  chosen = [entry for part in take(split, entries, f"images:{where}") for entry in part]
  return ImageFiles(f"images:{where}[{split}]", chosen, classes)


class ImageFiles(Source):
  """Image files, with what is known about each."""

  def __init__(self, name: str, entries: list[Entry], classes: list[str]):
    self.name, self.entries = name, entries
    self.class_names = {"label": classes} if classes else {}
    self.numbers = {label: number for number, label in enumerate(classes)}

  def __len__(self) -> int:
    return len(self.entries)

  def __getitem__(self, index: int) -> dict[str, Any]:
    path, fields = self.entries[index]
    record: dict[str, Any] = {"image": read_file(path), **(_beside(Path(path)) if fields is None else fields)}
    if self.numbers:
      label = record.pop("class")
      record |= {"label": self.numbers[label], "text": label.replace("_", " ")}
    return {**record, "path": path}


def _beside(image: Path) -> dict[str, Any]:
  """What the .txt and .json of an image's name say about it."""
  found: dict[str, Any] = {}
  if image.with_suffix(".json").is_file():
    found |= _object(read_file(image.with_suffix(".json")), str(image.with_suffix(".json")))
  if image.with_suffix(".txt").is_file():
    lines = read_file(image.with_suffix(".txt")).decode("utf-8-sig", "replace").splitlines()
    found["text"] = [line for line in lines if line.strip()]
  if not found:
    raise UserError(f"{image} has no caption: there is neither {image.stem}.txt nor {image.stem}.json beside it.")
  return found


def _rows(table: Path) -> list[tuple[int, dict[str, Any]]]:
  """The rows of a table of captions, with the numbers of their lines."""
  try:
    lines = read_file(table).decode("utf-8-sig")
    if table.suffix == ".csv":
      reader = csv.DictReader(lines.splitlines(keepends=True))
      return [(reader.line_num, row) for row in reader]
  except (UnicodeDecodeError, csv.Error) as error:
    raise UserError(f"{table} cannot be read: {error}.") from error
  numbered = [(number, line) for number, line in enumerate(lines.split("\n"), start=1) if line.strip()]
  return [(number, _object(line.encode(), f"{table} line {number}")) for number, line in numbered]


def _row(folder: Path, table: Path, number: int, row: dict[str, Any]) -> Entry:
  """The image that a row of a table names, relative to the folder and inside it, and the row's other fields."""
  if not isinstance(row.get("file"), str) or not row["file"]:
    raise UserError(f"{table} line {number} names no image in a field 'file'. Its fields: {', '.join(map(str, row))}.")
  path = os.path.normpath(row["file"])
  if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir:
    raise UserError(f"{table} line {number}: {row['file']} lies outside {folder}. Move the image into the folder.")
  return path, {key: value for key, value in row.items() if key not in ("file", None)}


def _object(text: bytes, what: str) -> dict[str, Any]:
  try:
    found = json.loads(text)
  except ValueError as error:
    raise UserError(f"{what} is not JSON: {error}.") from error
  if not isinstance(found, dict):
    raise UserError(f"{what} is {found!r:.60}, not a JSON object with named fields.")
  return found


def _class_folders(folder: Path) -> list[str]:
  """Names of subfolders, here and in the folders of the other splits, so that a class has the same number in all."""
  siblings = [folder.parent / name for name in SPLIT_FOLDERS] if folder.name in SPLIT_FOLDERS else []
  folders = [path for place in (folder, *siblings) if place.is_dir() for path in place.iterdir() if path.is_dir()]
  return [path.name for path in folders if not path.name.startswith(".")]
