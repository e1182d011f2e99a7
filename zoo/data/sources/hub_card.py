"""Dataset cards: the YAML of a README.md, with the files of splits and the names of classes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from zoo.data.sources.files import StoragePath
from zoo.errors import UserError, did_you_mean

_MOST = 2**20  # Maximum bytes of a README.md.


class Card(NamedTuple):
  """The card of one config: split -> patterns of its files, {} if missing; field -> names of its classes."""

  data_files: dict[str, list[str]]
  class_names: dict[str, list[str]]


def read_card(folder: StoragePath, config: str | None) -> Card:
  """Reads the card of a config, or of the only one, or of the default one.

  Raises:
    UserError: the YAML is invalid, there are several configs and none is chosen, or none has this name.
  """
  card = _yaml(folder / "README.md")
  configs = {str(entry.get("config_name", "default")): entry for entry in _objects(card.get("configs"))}
  chosen: Mapping[str, Any] = {}
  if configs:
    default = [name for name, entry in configs.items() if entry.get("default") is True or name == "default"]
    name = config or (default[0] if default else next(iter(configs)) if len(configs) == 1 else None)
    if name is None:
      raise UserError(
        f"{folder} has several configs: {', '.join(configs)}. Write hf:{folder}?config={next(iter(configs))}"
      )
    if name not in configs:
      raise UserError(f"{folder} has no config '{name}'.{did_you_mean(name, configs)} It has: {', '.join(configs)}.")
    config, chosen = name, configs[name]
  infos = _objects(card.get("dataset_info"))
  info = next((one for one in infos if one.get("config_name", config) == config), infos[0] if len(infos) == 1 else {})
  prefix = f"{str(chosen['data_dir']).strip('/')}/" if chosen.get("data_dir") else ""
  files = {split: [prefix + pattern for pattern in patterns] for split, patterns in _files(chosen).items()}
  return Card(files, _class_names(info))


def _files(config: Mapping[str, Any]) -> dict[str, list[str]]:
  listed = config.get("data_files")
  strings = lambda value: [value] if isinstance(value, str) else [item for item in value or () if isinstance(item, str)]
  if isinstance(listed, Mapping):
    return {str(split): strings(patterns) for split, patterns in listed.items()}
  if isinstance(listed, list) and any(isinstance(entry, Mapping) for entry in listed):
    return {str(entry.get("split", "train")): strings(entry.get("path")) for entry in _objects(listed)}
  return {"train": strings(listed)} if listed else {}


def _class_names(info: Mapping[str, Any]) -> dict[str, list[str]]:
  names_by_field = {}
  for feature in _objects(info.get("features")):
    dtype = feature.get("dtype") or feature.get("sequence") or feature.get("list")
    dtype = dtype.get("dtype", dtype) if isinstance(dtype, Mapping) else dtype
    label = dtype.get("class_label") if isinstance(dtype, Mapping) else None
    names = label.get("names") if isinstance(label, Mapping) else None
    if isinstance(names, Mapping) and all(str(number).isdecimal() for number in names):
      names_by_field[str(feature.get("name"))] = [str(names[number]) for number in sorted(names, key=int)]
    elif isinstance(names, list):
      names_by_field[str(feature.get("name"))] = list(map(str, names))
  return names_by_field


def _objects(value: Any) -> list[Mapping[str, Any]]:
  value = [value] if isinstance(value, Mapping) else value if isinstance(value, list) else []
  return [item for item in value if isinstance(item, Mapping)]


def _yaml(path: StoragePath) -> Mapping[str, Any]:
  """The YAML between two lines of `---` at the top of a file; {} if there is none."""
  import yaml

  if not path.is_file():
    return {}
  lines = path.read_bytes()[:_MOST].decode("utf-8-sig", "replace").splitlines()
  if not lines or lines[0].strip() != "---" or "---" not in lines[1:]:
    return {}
  try:
    card = yaml.safe_load("\n".join(lines[1 : lines.index("---", 1)]))
  except (yaml.YAMLError, RecursionError, ValueError) as error:
    raise UserError(f"The YAML at the top of {path} cannot be read: {error}") from error
  return card if isinstance(card, Mapping) else {}
