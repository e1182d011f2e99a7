"""`config_class` of old models: transformers' class if it is installed, else ours."""

import importlib
from typing import Any

from zoo.compat.config import Config


class ConfigClass:
  """A class attribute that is a config class of transformers, or `Config` without transformers.

  It is looked up lazily, as transformers takes seconds to import.

  Args:
    name: of the class, "BertConfig"; "": `Config`.
  """

  def __init__(self, name: str):
    self.name = name

  def __get__(self, instance: Any, owner: Any = None) -> Any:
    if not self.name:
      return Config
    try:
      return getattr(importlib.import_module("transformers"), self.name, Config)
    except ImportError:
      return Config
