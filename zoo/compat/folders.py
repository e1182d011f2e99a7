"""Folders and ids of the hub, with the errors that callers of the old classes expect."""

import os
import pathlib
from typing import Any

from zoo.errors import UserError
from zoo.hub import ids


class NoModel(UserError, OSError):
  """No folder and no id of the hub: an OSError in transformers, which callers catch to try another way."""


def folder_of(source: str | os.PathLike, subfolder: str = "", **options: Any) -> pathlib.Path:
  """As `zoo.hub.ids.folder_of`.

  Raises:
    NoModel: there is no such folder and no such id, or the hub cannot be reached.

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
