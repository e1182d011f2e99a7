"""Configs of old models: entries as attributes, and files as written by transformers."""

import json
import os
import pathlib
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from zoo.compat.folders import folder_of
from zoo.errors import UserError, shown
from zoo.hub.files import CONFIG, read_json
from zoo.storage import replacing

# transformers' defaults for every model.
DEFAULTS = {"output_attentions": False, "output_hidden_states": False, "return_dict": True}
SILENT = {
  "is_encoder_decoder": False, "is_decoder": False, "add_cross_attention": False, "tie_word_embeddings": True,
  "use_cache": True, "architectures": None, "problem_type": None, "bos_token_id": None, "eos_token_id": None,
  "pad_token_id": None, "sep_token_id": None, "decoder_start_token_id": None, "initializer_range": 0.02,
}  # fmt: skip
ALIASES = {
  "use_return_dict": ("return_dict",),
  "hidden_size": ("d_model", "n_embd", "dim"),
  "num_hidden_layers": ("num_layers", "n_layer", "n_layers", "encoder_layers"),
  "num_attention_heads": ("num_heads", "n_head", "n_heads", "encoder_attention_heads"),
  "max_position_embeddings": ("n_positions",),
  "head_dim": ("d_kv",),
}


PARTS = ("encoder", "decoder")  # Nested configs whose names do not end in "_config".


class Config(SimpleNamespace):
  """A config.json with its entries as attributes and sections as nested configs.

  >>> config = Config(d_model=8, vision_config={"patch_size": 4})
  >>> config.hidden_size, config.vision_config.patch_size, config.num_labels
  (8, 4, 2)
  """

  def __init__(self, **entries: Any):
    super().__init__(**{name: Config(**x) if _is_section(name, x) else x for name, x in entries.items()})

  def __getattr__(self, name: str) -> Any:
    entries = vars(self)
    if name == "num_labels":
      return len(entries.get("id2label") or (0, 1))
    if name == "name_or_path":
      return entries.get("_name_or_path", "")
    other = next((other for other in ALIASES.get(name, ()) if other in entries), None)
    if other is not None:
      return entries[other]
    if name in DEFAULTS | SILENT:
      return (DEFAULTS | SILENT)[name]
    raise AttributeError(f"The config has no entry {name}.")

  @classmethod
  def from_dict(cls, config_dict: Mapping[str, Any], **kwargs: Any) -> "Config":
    """A config from a dict, with entries overridden by keyword."""
    return cls(**{**config_dict, **kwargs})

  @classmethod
  def from_json_file(cls, json_file: str | os.PathLike) -> "Config":
    """Reads the config in a file."""
    return cls(**read_json(pathlib.Path(json_file)))

  @classmethod
  def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, subfolder: str = "", **kwargs: Any):
    """Reads the config.json of a folder or hub id, with entries overridden by keyword.

    Raises:
      UserError: there is none, or it is not a JSON object.
    """
    folder = folder_of(os.fspath(pretrained_model_name_or_path), subfolder)
    return cls.from_dict({**read_json(folder / CONFIG), "_name_or_path": str(pretrained_model_name_or_path)}, **kwargs)

  def update(self, config_dict: Mapping[str, Any]) -> None:
    """Sets these entries."""
    for name, value in config_dict.items():
      setattr(self, name, Config(**value) if _is_section(name, value) else value)

  def to_dict(self) -> dict[str, Any]:
    """The entries as in config.json."""
    return {name: x.to_dict() if isinstance(x, Config) else x for name, x in vars(self).items()}

  def to_diff_dict(self) -> dict[str, Any]:
    """The entries without defaults."""
    return {name: x for name, x in self.to_dict().items() if name not in DEFAULTS or x != DEFAULTS[name]}

  def to_json_string(self, use_diff: bool = True) -> str:
    """The entries as JSON, with or without the defaults.

    >>> print(Config(d_model=8).to_json_string(), end="")
    {
      "d_model": 8
    }
    """
    entries = self.to_diff_dict() if use_diff else self.to_dict()
    return json.dumps(entries, indent=2, sort_keys=True, default=str) + "\n"

  def to_json_file(self, json_file_path: str | os.PathLike, use_diff: bool = True) -> None:
    """Writes `to_json_string`."""
    with replacing(pathlib.Path(json_file_path)) as file:
      file.write_text(self.to_json_string(use_diff))

  def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
    """Writes the config.json of a folder, which is created if missing.

    Raises:
      UserError: push_to_hub is set, or the folder cannot be written.
    """
    refuse_to_push(push_to_hub)
    folder = pathlib.Path(save_directory)
    try:
      folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise UserError(f"{folder} cannot be created: {error.strerror}.") from error
    self.to_json_file(folder / CONFIG)


def refuse_to_push(push_to_hub: bool) -> None:
  """UserError for options that would upload files."""
  if push_to_hub:
    raise UserError("push_to_hub is True. Save to a folder, and send it with huggingface_hub's upload_folder.")


def entries_of(config: Any) -> dict[str, Any]:
  """The entries of a dict, of a `Config` or of a config of transformers."""
  if isinstance(config, Mapping):
    return {name: entries_of(x) if isinstance(x, Mapping | Config) else x for name, x in config.items()}
  if hasattr(config, "to_dict"):
    return config.to_dict()
  raise UserError(f"config is {shown(config)}. It must be a dict, a zoo.compat.Config or a config of transformers.")


def take_prefixed(kwargs: dict[str, Any], *prefixes: str) -> dict[str, dict[str, Any]]:
  """Pops the keywords with each of `prefixes` from `kwargs` -> {prefix: {keyword without it: value}}."""
  names = {prefix: [name for name in kwargs if name.startswith(prefix)] for prefix in prefixes}
  return {prefix: {name.removeprefix(prefix): kwargs.pop(name) for name in names[prefix]} for prefix in prefixes}


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
  """Merges two configs recursively; the second takes precedence."""
  both = {name: merged(first[name], second[name]) for name in first.keys() & second.keys()
          if _is_section(name, first[name]) and _is_section(name, second[name])}  # fmt: skip
  return {**first, **second, **both}


def _is_section(name: str, value: Any) -> bool:
  return (name.endswith("_config") or name in PARTS) and isinstance(value, Mapping)
