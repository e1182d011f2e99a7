"""Files that evaluators write to the run folder: atomically, by the first host only."""

import json
import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax

from zoo.errors import UserError, shown
from zoo.storage import as_path, make_folder, replacing

RUN = ("config", "environment", "evaluation", "metrics", "model", "page", "params", "wandb_id")  # Files of a run.


def check_name(file: Any) -> str:
  """UserError for an evaluator's `file`, without extension, that is not a bare name, or is a run's own file."""
  if not isinstance(file, str) or not re.fullmatch(r"\w[\w .,+=@()-]{0,99}", file):
    raise UserError(
      f"file is {shown(file)}. It must be a file name without folder and suffix: letters, digits, dots, dashes and "
      "spaces."
    )
  if file.split(".")[0].lower() in RUN:
    raise UserError(f"file is '{file}', a name that the run itself uses. Choose another.")
  return file


def write_bytes(folder: str | os.PathLike | None, name: str, content: bytes) -> None:
  """Writes `folder/name`; does nothing without a folder. UserError for a name that leads out of the folder."""
  if folder is None or jax.process_index() != 0:
    return
  if pathlib.PurePath(name).name != name:
    raise UserError(f"{shown(name)} is outside {folder}. Name a file in it.")
  folder = as_path(folder)
  make_folder(folder)
  with replacing(folder / name) as path:
    path.write_bytes(content)


def write_text(folder: str | os.PathLike | None, name: str, text: str) -> None:
  """Writes `folder/name`, ending in one line break."""
  write_bytes(folder, name, (text.rstrip("\n") + "\n").encode("utf-8", "replace"))


def write_json(folder: str | os.PathLike | None, name: str, content: Mapping) -> None:
  """Writes `folder/name` as JSON; NaN and infinity become null."""
  plain = {
    key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in content.items()
  }
  write_text(folder, name, json.dumps(plain, indent=2, allow_nan=False))
