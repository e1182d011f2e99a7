"""Resolves folders and hub ids, with the exceptions that callers of the old classes expect."""

import os
import pathlib
from typing import Any

from zoo.errors import UserError
from zoo.hub import ids


class NoModel(UserError, OSError):
  """Neither a folder nor a hub id: an OSError as in transformers, which callers catch."""


def folder_of(source: str | os.PathLike, subfolder: str = "", **options: Any) -> pathlib.Path:
  """`zoo.hub.ids.folder_of` with an OSError.

  Raises:
    NoModel: there is no such folder or id, or the hub cannot be reached.

  >>> try:
  ...   folder_of("./nowhere")
  ... except OSError as error:
  ...   print(error)
  nowhere does not exist. Name a run's folder, a folder with a config.json, or a hub id.
  """
  try:
    return ids.folder_of(source, subfolder, **options)
  except UserError as error:
    raise NoModel(str(error)) from None
