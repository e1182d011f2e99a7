"""`hf:FOLDER[?config=NAME]`: data saved by Hugging Face's datasets, read without that library.

Three kinds of folders are detected by their contents: those of `save_to_disk` (`state.json`, or `dataset_dict.json` and
a folder for each split), those of its cache (`*.arrow` beside `dataset_info.json`), and copies of a repository of the
hub with Parquet, CSV or JSON lines, whose `README.md` may map files to splits and configs in its YAML.
https://huggingface.co/docs/datasets, https://huggingface.co/docs/hub/datasets-data-files-configuration
"""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from zoo.data.sources import Source, open_source
from zoo.data.sources.arrow_files import ArrowFile, ArrowFiles, arrow_rows
from zoo.data.sources.copies import nearby
from zoo.data.sources.files import StoragePath, at, listed
from zoo.data.sources.hub_card import Card, read_card
from zoo.data.sources.joined import Joined
from zoo.data.sources.options import split_options
from zoo.data.sources.parquet import ENDINGS, File, Parquet, in_file_order, rows_of
from zoo.data.sources.splits import VALIDATION, NoSplit, hash_order, is_hidden, matching_names, take
from zoo.data.sources.web import is_web
from zoo.errors import UserError, did_you_mean
from zoo.json_files import read_json
from zoo.storage import is_remote

TEXTS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
OPTIONS = {"config": "the part of a repository of several"}
_SHARD = re.compile(r"(?:.*/)?(?:[\w.]+-)??(?P<split>\w[\w.]*?)(?:-\d+-of-\d+)?\.\w+")
_WORDS = {"train": "train|training", "validation": "|".join(VALIDATION), "test": "test|testing|eval|evaluation"}


class Saved(NamedTuple):
  """Arrow files of the splits of a folder, and the features of their columns."""

  splits: dict[str, list[StoragePath]]
  features: dict[str, Any]


def hf(where: str, split: str, data_dir: str | None = None) -> Source:
  """Opens a split of a saved dataset. Each example: column -> value; an Image or Audio as its encoded bytes.

  Args:
    where: the folder; `?config=NAME` after it chooses one of several.
    split: in TFDS's split syntax, over the splits of the folder; a folder of one split is `train`.
    data_dir: base folder of relative paths.
  """
  place, options = split_options(where, OPTIONS)
  path = place if is_remote(place) else os.path.join(os.path.expanduser(data_dir or ""), os.path.expanduser(place))
  folder, name, config = at(path), f"hf:{where}[{split}]", options.get("config")
  if not is_web(folder) and not folder.is_dir():  # Servers need not list a folder whose files are named in one.
    raise UserError(f"There is no folder {folder}. Check the source, and data_dir if the path is relative to it.")
  saved, files = _saved(folder), []
  if saved is None:
    files = _files_in(folder, place)
    saved = _cached(folder, files)
  if saved is not None:
    if config is not None:
      raise UserError(f"hf:{where}: {folder} holds one dataset without configs. Leave out ?config={config}.")
    arrows: list[ArrowFile] = []
    chosen = take(split, lambda part: arrow_rows(arrows, _split(saved.splits, part, where)), f"hf:{where}")
    return ArrowFiles(name, arrows, in_file_order(chosen), saved.features)
  card = read_card(folder, config)
  splits = _splits_of_hub(folder, card, files, config)
  if not any(file.lower().endswith(ENDINGS) for group in splits.values() for file in group):
    parts: list[Source] = []
    chosen = take(split, lambda part: _texts(parts, folder, _split(splits, part, where)), f"hf:{where}")
    return Joined(name, parts, np.concatenate(chosen), card.class_names)
  tables: list[File] = []
  paths = lambda part: [(folder / file, file) for file in _split(splits, part, where)]
  chosen = in_file_order(take(split, lambda part: rows_of(tables, paths(part), None), f"hf:{where}"))
  source = Parquet(name, tables, chosen)
  source.class_names = {**source.class_names, **card.class_names}
  return source


def _files_in(folder: StoragePath, place: str) -> list[str]:
  """The files in a folder and the folders in it, relative to it; UserError if a server does not list them."""
  files = sorted(file for file in listed(folder) if not is_hidden(file))
  if is_web(folder) and not files:
    raise UserError(
      f"{folder} cannot be listed: the server shows no index of it. Name its files: parquet:{place}/FILE.parquet"
    )
  return files


def _texts(parts: list[Source], folder: StoragePath, files: list[str]) -> np.ndarray:
  """Opens text files and adds them to `parts`: their rows [rows, 2], part and row in it, in the order of a hash."""
  tables, orders = [], []
  for file in files:
    part = open_source(f"{TEXTS[os.path.splitext(file)[1].lower()]}:{folder / file}")
    tables.append(np.stack([np.full(len(part), len(parts)), np.arange(len(part))], axis=1))
    orders.append(hash_order(file, len(part)))
    parts.append(part)
  return np.concatenate(tables)[np.argsort(np.concatenate(orders), kind="stable")]


def _split(splits: Mapping[str, list[Any]], name: str, where: str) -> list[Any]:
  """The files of a split, by its name or, for validation, by one of its other names."""
  names = [name, *(VALIDATION if name in VALIDATION else ())]
  if name == "all" and len(splits) == 1:
    names += splits
  known = next((one for one in names if one in splits), None)
  if known is None:
    raise NoSplit(f"{where} has no split '{name}'.{did_you_mean(name, splits)} It has: {', '.join(splits)}.")
  return splits[known]


def _saved(folder: StoragePath) -> Saved | None:
  """Opens a folder of `save_to_disk`; None if it is not one."""
  if (folder / "dataset_dict.json").is_file():
    names = read_json(nearby(folder / "dataset_dict.json")).get("splits")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and _is_name(name) for name in names):
      raise UserError(f"{folder / 'dataset_dict.json'} names no folders of splits. Save the dataset again.")
    parts = {name: _saved(folder / name) for name in names}
    missing = [name for name, part in parts.items() if part is None]
    if missing:
      raise UserError(f"{folder / missing[0]} has no state.json: the split '{missing[0]}' is missing. Copy it, too.")
    first = next(part for part in parts.values() if part is not None)
    return Saved({name: part.splits["train"] for name, part in parts.items() if part is not None}, first.features)
  if not (folder / "state.json").is_file():
    return None
  state = read_json(nearby(folder / "state.json"))
  if state.get("_indices_data_files"):
    raise UserError(
      f"{folder} was saved by a version of datasets before 2.0, with indices. Save it again by a new one."
    )
  files = [entry.get("filename") if isinstance(entry, dict) else None for entry in state.get("_data_files") or [None]]
  names = [file for file in files if isinstance(file, str) and _is_name(file)]
  if len(names) < len(files):
    raise UserError(f"{folder / 'state.json'} names no files in '_data_files'. Save the dataset again.")
  return Saved({"train": [folder / file for file in names]}, _features(folder))


def _cached(folder: StoragePath, files: list[str]) -> Saved | None:
  """Opens a cache folder of datasets: `squad-train.arrow`, `squad-train-00000-of-00002.arrow`, dataset_info.json."""
  splits: dict[str, list[StoragePath]] = {}
  for file in files:
    if os.path.dirname(file) or not file.endswith(".arrow"):
      continue
    match = _SHARD.fullmatch(file)
    if match is not None and not file.startswith("cache-"):  # Results of map and filter.
      splits.setdefault(match["split"], []).append(folder / file)
  return Saved(splits, _features(folder)) if splits else None


def _features(folder: StoragePath) -> dict[str, Any]:
  path = folder / "dataset_info.json"
  features = read_json(nearby(path)).get("features") if path.is_file() else None
  return features if isinstance(features, dict) else {}


def _splits_of_hub(folder: StoragePath, card: Card, files: list[str], config: str | None) -> dict[str, list[str]]:
  """The files of each split of a repository, by its card or else by their names."""
  if card.data_files:
    splits = {split: matching_names(files, patterns) for split, patterns in card.data_files.items()}
    for split, names in splits.items():
      if not names:
        raise UserError(f"{folder} has no file {', '.join(card.data_files[split])}, its split '{split}'. Fetch it.")
  else:
    inside = [file for file in files if config is None or file.startswith(config + os.sep)]
    if config is not None and not inside:
      raise UserError(f"{folder} has no config '{config}': neither README.md nor a folder names it.")
    splits = {}
    tables = [file for file in inside if file.lower().endswith(ENDINGS)]
    for file in tables or [
      file for file in inside if file.lower().endswith(tuple(TEXTS)) and not file.endswith(".json")
    ]:
      splits.setdefault(_split_of(file), []).append(file)
  names = [file for group in splits.values() for file in group]
  kinds = {ENDINGS if file.lower().endswith(ENDINGS) else os.path.splitext(file)[1].lower() for file in names}
  if len(kinds) == 1 and kinds <= {ENDINGS, *TEXTS}:
    return splits
  other = {".txt": "text", ".tar": "webdataset", ".json": "jsonl", ".zip": "", ".gz": ""}
  kind = next((other[ending] for ending in other for file in names or files if file.endswith(ending)), "")
  way_out = f" Write {kind}:{folder}." if kind else " Save it by save_to_disk, or fetch its Parquet files."
  mixed = " of one kind" if len(kinds) > 1 else ""
  raise UserError(f"{folder} has no dataset of Arrow, Parquet, .csv, .tsv or .jsonl files{mixed}.{way_out}")


def _split_of(file: str) -> str:
  """The split in a file's or else its folder's name: data/train-00000-of-00002.parquet, test/0.parquet."""
  match = re.fullmatch(r"(\w+)-\d+-of-\d+\.\w+", os.path.basename(file))
  if match is not None:
    return match[1]
  for part in reversed(file.split(os.sep)):
    for split, words in _WORDS.items():
      if re.search(rf"(?:^|[^a-z])(?:{words})(?:[^a-z]|$)", part.lower()):
        return split
  return "train"


def _is_name(name: str) -> bool:
  """Whether it is the bare name of a file or folder."""
  return name not in ("", ".", "..") and os.path.basename(name) == name and "\\" not in name
