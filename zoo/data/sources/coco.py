"""`coco:FOLDER`, `coco:annotations/captions_val2014.json`: images with several captions each, of COCO, Flickr30k.

Two kinds of JSON are detected by their contents. COCO's own, `annotations/captions_SPLIT*.json` of a folder: `images`
(id, file_name) and `annotations` (image_id, caption); images are in `val2014`, `images/val2014` or `images`. And
Karpathy's splits (`dataset_coco.json`, `dataset_flickr30k.json`): `images` with a filename, their sentences and a
split. https://cocodataset.org/#format-data, https://cs.stanford.edu/people/karpathy/deepimagesent
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from zoo.data.sources.files import StoragePath, at
from zoo.data.sources.images import Entry, ImageFiles
from zoo.data.sources.splits import VALIDATION, NoSplit, by_hash, take
from zoo.errors import UserError, shown
from zoo.json_files import read_json
from zoo.storage import is_remote

Rows = dict[str, dict[str, Any]]  # An image's file -> its fields.
TRIES = 20  # Images to look for: the first ones may be missing in a partial download.


def coco(where: str, split: str, data_dir: str | None = None) -> ImageFiles:
  """Opens images and captions. Each example: `image`, `text` (all captions, in the order of the file), `image_id`.

  Args:
    where: a JSON file, or the folder whose `annotations` (or which itself) holds captions_*.json.
    split: for a folder those in the names of its captions_*.json (train, val; validation, valid and dev are val);
      for Karpathy's files those that they list (train, restval, val, test); else train is the full file.
    data_dir: base folder of relative paths.
  """
  base = where if is_remote(where) else os.path.join(os.path.expanduser(data_dir or ""), os.path.expanduser(where))

  def entries(name: str) -> list[Entry]:
    table = _table_of(at(base), name)
    rows, errors = _rows(table, read_json(table), name)
    find = _finder(table, [file for file in rows if not _is_outside(file)])
    broken = {error: Entry(str(table), {}, error) for error in errors}
    return [broken[key] if key in broken else _entry(table, key, rows[key], find) for key in by_hash([*rows, *broken])]

  chosen = [entry for part in take(split, entries, f"coco:{where}") for entry in part]
  return ImageFiles(f"coco:{where}[{split}]", chosen, [], [])


def _table_of(base: StoragePath, name: str) -> StoragePath:
  if base.is_file():
    return base
  folder = base / "annotations" if (base / "annotations").is_dir() else base
  files = sorted(path.name for path in folder.iterdir() if path.suffix == ".json") if folder.is_dir() else []
  by_split: dict[str, list[str]] = {}
  for file in files:
    if match := re.fullmatch(r"captions_([a-z]+)\w*\.json", file):
      by_split.setdefault(match[1], []).append(file)
  names = by_split.get("val" if name in VALIDATION else name, [])
  if len(names) != 1:
    what = f"several captions of '{name}': {', '.join(names)}" if names else f"no captions_{name}*.json"
    choices = f" It has: {', '.join(files)}." if files and not names else ""
    raise UserError(f"{folder} has {what}.{choices} Name the JSON file: coco:{folder / 'captions_val2014.json'}.")
  return folder / names[0]


def _rows(table: StoragePath, content: Mapping[str, Any], split: str) -> tuple[Rows, list[str]]:
  """The images of a split, and the errors of unusable entries."""
  images: Any = content.get("images")
  annotations: Any = content.get("annotations")
  if _are_objects(images) and any("sentences" in image for image in images):
    return _of_karpathy(table, images, split)
  if not _are_objects(images) or not _are_objects(annotations):
    raise UserError(f"{table} has neither lists 'images' and 'annotations' nor images with sentences.")
  if not any("caption" in annotation for annotation in annotations):
    raise UserError(f"{table} has annotations without captions. Name the captions file, captions_*.json.")
  files = {str(image.get("id")): image.get("file_name") for image in images}
  rows: Rows = {}
  errors: list[str] = []
  for number, annotation in enumerate(annotations):
    caption, image = annotation.get("caption"), str(annotation.get("image_id"))
    file = files.get(image)
    if not isinstance(file, str) or not isinstance(caption, str):
      errors.append(f"{table}: annotation {number} has no caption, or its image {image} has no file_name.")
      continue
    row = rows.setdefault(file, {"text": [], "image_id": annotation["image_id"]})
    row["text"].append(caption)
  return _some(rows, table, split), errors


def _of_karpathy(table: StoragePath, images: list[dict[str, Any]], split: str) -> tuple[Rows, list[str]]:
  splits = {str(image["split"]) for image in images if "split" in image}
  name = next((alias for alias in VALIDATION if alias in splits), split) if split in VALIDATION else split
  if splits and name not in splits and name != "all":
    raise NoSplit(f"{table} has no split '{split}'. It has: {', '.join(sorted(splits))}, all.")
  rows: Rows = {}
  errors: list[str] = []
  for number, image in enumerate(images):
    if splits and name not in ("all", image.get("split")):
      continue
    sentences: Any = image.get("sentences")
    file = image.get("filename")
    texts = [sentence.get("raw") for sentence in sentences] if _are_objects(sentences) else []
    if not isinstance(file, str) or not texts or not all(isinstance(text, str) for text in texts):
      errors.append(f"{table}: image {number} has no filename, or no sentences with a str 'raw'.")
      continue
    path = os.path.join(image["filepath"], file) if isinstance(image.get("filepath"), str) else file
    rows[path] = {"text": texts, "image_id": image.get("cocoid", image.get("imgid", number))}
  return _some(rows, table, split), errors


def _some(rows: Rows, table: StoragePath, split: str) -> Rows:
  if not rows:
    raise UserError(f"{table} has no captioned images of split '{split}'.")
  return rows


def _are_objects(value: Any) -> bool:
  return isinstance(value, list) and len(value) > 0 and all(isinstance(item, dict) for item in value)


def _finder(table: StoragePath, files: list[str]) -> Callable[[str], StoragePath]:
  """Finds the image folder: the first usual one with one of the first few images."""
  split = table.name.removesuffix(".json").removeprefix("captions_")
  bases = [table.parent, table.parent.parent]
  folders = [base / part for part in (split, f"images/{split}", "images", ".") for base in bases]
  for file in files[:TRIES]:
    for folder in folders:
      if (folder / file).is_file():
        return lambda file: folder / file
      if (folder / os.path.basename(file)).is_file():
        return lambda file: folder / os.path.basename(file)
  searched = ", ".join(dict.fromkeys(str(folder) for folder in folders))
  example_path = shown(files[0]) if files else "images outside of its folder"
  raise UserError(
    f"{table} names {example_path}, which is in none of {searched}. Put the images or a link to them there."
  )


def _is_outside(file: str) -> bool:
  return os.path.isabs(file) or os.path.normpath(file).split(os.sep)[0] == os.pardir


def _entry(table: StoragePath, file: str, fields: dict[str, Any], find: Callable[[str], StoragePath]) -> Entry:
  if _is_outside(file):
    return Entry(str(table), {}, f"{table}: {shown(file)} is outside the image folder.")
  return Entry(str(find(os.path.normpath(file))), fields)
