"""Files that evaluators leave in the run folder: written by the first host alone, whole or not at all."""

import json
import math
import os
from collections.abc import Mapping

import jax

from zoo.atomic import replacing
from zoo.places import place


def write_bytes(folder: str | os.PathLike | None, name: str, content: bytes) -> None:
  """Writes `folder/name`; no folder, no file."""
  if folder is None or jax.process_index() != 0:
    return
  folder = place(folder)
  folder.mkdir(parents=True, exist_ok=True)
  with replacing(folder / name) as path:
    path.write_bytes(content)


def write_text(folder: str | os.PathLike | None, name: str, text: str) -> None:
  """Writes `folder/name`, ending in one line break."""
  write_bytes(folder, name, (text.rstrip("\n") + "\n").encode("utf-8", "replace"))


def write_json(folder: str | os.PathLike | None, name: str, content: Mapping) -> None:
  """Writes `folder/name` as JSON, which knows no NaN and no infinity: they become null."""
  plain = {
    key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in content.items()
  }
  write_text(folder, name, json.dumps(plain, indent=2, allow_nan=False))
