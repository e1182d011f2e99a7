"""Resolves a folder or a hub id to a local folder."""

import difflib
import os
import pathlib
import re
from typing import Any

from zoo.errors import UserError
from zoo.extras import install
from zoo.hub.files import FLAX, FLAX_SHARDS, INDEX, OPEN_CLIP, WEIGHTS

ID = re.compile(r"(?P<repo>[\w][\w.-]*(/[\w][\w.-]*)?)(@(?P<revision>[\w][\w./-]*))?")
SMALL = ["*.json", "*.txt", "*.model"]  # Configs, vocabularies, merges.


def folder_of(source: str | os.PathLike, subfolder: str = "", **options: Any) -> pathlib.Path:
  """Resolves `source`: itself if it is a local folder, else the files of the hub id, downloaded once.

  Args:
    source: a folder, or `openai/clip-vit-base-patch32`, or with a revision `gpt2@v1.0`. The hub's environment variables
      apply: HF_HOME, HF_HUB_OFFLINE, HF_TOKEN, HF_ENDPOINT.
    subfolder: of the folder or id, if it holds several models.
    **options: for `huggingface_hub.snapshot_download`; ignored for a local folder.

  Raises:
    UserError: there is no such folder or id, the hub cannot be reached, or huggingface_hub is not installed.
  """
  path = pathlib.Path(source).expanduser()
  if path.is_dir():
    return _inside(path, subfolder)
  if path.exists():
    raise UserError(f"{path} is a file, not a folder. Name the folder it is in.")
  match = ID.fullmatch(os.fspath(source))
  if match is None:
    raise UserError(f"{path} does not exist. Name a run's folder, a folder with a config.json, or a hub id.")
  return _inside(_fetch(match["repo"], match["revision"], subfolder, options), subfolder)


def small_files_of(name: str) -> pathlib.Path:
  """As `folder_of` for an id `owner/model`, without weights, e.g. for a tokenizer."""
  match = ID.fullmatch(name)
  if match is None:
    raise UserError(f"{name} is not a hub id (OWNER/NAME).")
  return _fetch(match["repo"], match["revision"], "", {}, weights=False)


def _inside(folder: pathlib.Path, subfolder: str) -> pathlib.Path:
  if not (folder / subfolder).is_dir():
    subfolders = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir())[:8]) or "none"
    raise UserError(f"{folder} has no subfolder '{subfolder}'. It has: {subfolders}.")
  return folder / subfolder


def _fetch(
  repo: str, revision: str | None, subfolder: str, options: dict[str, Any], weights: bool = True
) -> pathlib.Path:
  try:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError
  except ImportError:
    raise UserError(f"{repo} does not exist. To download it from the hub: {install('hub')}.") from None

  def snapshot(patterns: list[str]) -> pathlib.Path:
    patterns = [f"{subfolder}/{pattern}" for pattern in patterns] if subfolder else patterns
    return pathlib.Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=patterns, **options))

  try:
    folder = snapshot([*SMALL, WEIGHTS, "model-*.safetensors"] if weights else SMALL)
    if weights and not any((folder / subfolder / name).exists() for name in (WEIGHTS, INDEX)):
      # Repositories of open_clip, or with old Flax weights.
      folder = snapshot([*SMALL, OPEN_CLIP, FLAX, FLAX_SHARDS])
  except (HfHubHTTPError, OSError, ValueError) as error:
    raise UserError(
      f"{repo} is not a folder here{_near(repo)}, and cannot be downloaded from the hub: {_sentences(str(error))}"
    ) from error
  return folder


def _near(repo: str) -> str:
  """A hint at a similarly named folder: `hubs/gpt3` beside `hubs/gpt2`."""
  path = pathlib.Path(repo)
  if not path.parent.is_dir():
    return ""
  folders = {str(path.parent / sibling.name) for sibling in path.parent.iterdir() if sibling.is_dir()}
  near = difflib.get_close_matches(repo, sorted(folders), n=1)
  return f" (did you mean the folder {near[0]}?)" if near else ""


def _sentences(text: str, limit: int = 300) -> str:
  """The first sentences of a text, at least one, as many as fit."""
  first, *following = re.split(r"(?<=[.!?]) ", " ".join(text.split()))
  for sentence in following:
    if len(first) + len(sentence) >= limit:
      break
    first = f"{first} {sentence}"
  return first
