"""Synthetic data for planning: just enough for batches of the config's shapes."""

import io
import json
import pathlib
import tarfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

DOCUMENTS, WORDS = 16, 6000  # Enough words for a row of 4,096 tokens and more.


def with_fake_data(data: Mapping[str, Any], folder: pathlib.Path) -> dict[str, Any]:
  """Replaces the source of a config's section `data` by synthetic records in `folder`, long enough to fill every row.

  Args:
    data: section of a pipeline; nested ones (of `mixture`, `packed`) are replaced too.
    folder: output folder.
  """
  section = dict(data)
  for name in ("data", "members"):
    inner = section.get(name)
    if isinstance(inner, Mapping):
      section[name] = (
        with_fake_data(inner, folder)
        if "name" in inner
        else {key: with_fake_data(member, folder / key) for key, member in inner.items()}
      )
  if "source" not in section:
    return section
  kind = section.get("name")
  write = {"image_text": _captioned, "labelled_images": _labelled}.get(str(kind), _texts)
  folder.mkdir(parents=True, exist_ok=True)
  section |= {"source": write(section, folder), "split": "train"}
  section.pop("data_dir", None)
  if "tokenizer" in section:
    section["tokenizer"] = "bytes"  # Any tokenizer will do: lengths are the same, and token ids do not matter.
  return section


def tokenizers(data: Mapping[str, Any]) -> set[str]:
  """The local tokenizers that a section `data` names, without those of a hub or of remote files."""
  names = {str(data["tokenizer"])} if "tokenizer" in data else set()
  for inner in (*(data.get("members") or {}).values(), data.get("data")):
    names |= tokenizers(inner) if isinstance(inner, Mapping) else set()
  return {name for name in names if "/" not in name or pathlib.Path(name).expanduser().exists()}


def _texts(data: Mapping[str, Any], folder: pathlib.Path) -> str:
  """Writes documents of words, with every field that the section names."""
  fields = {"text", "source", "target", *(value for name, value in data.items() if name.endswith("_field") and value)}
  words = np.random.default_rng(0).choice(["planning", "before", "paying", "is", "wise", "and", "cheap"], WORDS)
  lines = [" ".join(words[first : first + 12]).capitalize() + "." for first in range(0, WORDS, 12)]
  record = dict.fromkeys(sorted(fields), " ".join(lines))
  labels = data.get("class_names") or data.get("classes") or ["no", "yes"]
  path = folder / "texts.jsonl"
  label = str(data.get("label_field") or "label")
  path.write_text("".join(json.dumps(record | {label: labels[i % len(labels)]}) + "\n" for i in range(DOCUMENTS)))
  return f"jsonl:{path}"


def _picture(number: int) -> bytes:
  stream = io.BytesIO()
  Image.new("RGB", (64, 64), (number * 16 % 256, 128, 64)).save(stream, "PNG")
  return stream.getvalue()


def _labelled(data: Mapping[str, Any], folder: pathlib.Path) -> str:
  for number in range(DOCUMENTS):
    path = folder / "images" / f"class_{number % 2}" / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_picture(number))
  return f"images:{folder / 'images'}"


def _captioned(data: Mapping[str, Any], folder: pathlib.Path) -> str:
  path = folder / "pairs.tar"
  with tarfile.open(path, "w") as tar:
    for number in range(DOCUMENTS):
      for name, content in (
        (f"{number}.png", _picture(number)),
        (f"{number}.txt", b"a plan of " + b"many words " * 99),
      ):
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
  return f"webdataset:{path}"
