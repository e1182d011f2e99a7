"""What config classes of transformers know: writes zoo/convert/rules/reference.json, by which entries of a config.json
are judged.

    python scripts/reference_configs.py            of the version that is installed, in place of its own section
    PYTHONPATH=OLDER python scripts/reference_configs.py

Kept are facts alone, names and default values: of every model_type that the zoo reads, the fields of its config class,
their defaults and other names, and every name that the modelling programs read of a config.
"""

import ast
import dataclasses
import inspect
import json
import os
import pathlib
import sys
from collections.abc import Iterable
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILE = ROOT / "zoo" / "convert" / "rules" / "reference.json"
# The programs that every model of the reference shares.
SHARED = """backbone_utils cache_utils configuration_utils masking_utils modeling_attn_mask_utils modeling_layers
modeling_rope_utils modeling_utils pytorch_utils""".split()
# What is read of a config.json before any class is made of it.
LOADING = ("configuration_files", "quantization_config", "transformers_weights")
PROCESSORS = ("bit", "clip", "siglip", "siglip2", "vit")
NOTHING = object()


def facts() -> dict[str, Any]:
  """What the installed transformers knows."""
  import transformers
  from transformers.models.auto.configuration_auto import CONFIG_MAPPING

  home = pathlib.Path(transformers.__file__).parent
  base = transformers.PretrainedConfig
  common = defaults(base)
  shared = reads(home / f"{name}.py" for name in SHARED)
  shared |= dict.fromkeys(LOADING, NOTHING)
  shared |= dict.fromkeys(of_class(base), NOTHING)
  found = {}
  for name in model_types():
    if name not in CONFIG_MAPPING:
      continue
    kind = CONFIG_MAPPING[name]
    files = pathlib.Path(inspect.getfile(kind)).parent.glob("*.py")
    programs = [file for file in files if file.name.startswith(("modeling_", "configuration_"))]
    programs = [file for file in programs if not file.name.startswith(("modeling_tf_", "modeling_flax_"))]
    own, seen = defaults(kind), reads(programs)
    seen |= dict.fromkeys(of_class(kind), NOTHING)
    aliases = {other: to for other, to in kind.attribute_map.items() if other != to}
    found[name] = {
      "defaults": {name: value for name, value in own.items() if name not in common or common[name] != value},
      "aliases": aliases,
      **split({name: value for name, value in seen.items() if name not in {*own, *common, *aliases, *shared}}),
    }
  rest = {name: value for name, value in shared.items() if name not in common}
  others = {"generation": of_generation(home), "processors": of_processors(home)}
  return {"common": {"defaults": common, **split(rest)}, **others, "types": found}


def of_generation(home: pathlib.Path) -> dict[str, Any]:
  """What the installed transformers knows of a generation_config.json."""
  from transformers import GenerationConfig

  config = GenerationConfig()
  stated = getattr(config, "_get_default_generation_params", dict)()
  found = {name: stated.get(name, value) for name, value in vars(config).items() if not name.startswith("_")}
  found = {name: value for name, value in sorted(found.items()) if plain(value)}
  programs = [*(home / "generation").glob("*.py"), home / "models" / "whisper" / "generation_whisper.py"]
  seen = reads(programs, of="generation_config")
  return {"defaults": found, **split({name: value for name, value in seen.items() if name not in found})}


def of_processors(home: pathlib.Path) -> dict[str, Any]:
  """Every name that a preprocessor_config.json of images or of sound may have.

  By the programs, for which of their classes there are depends on what else is installed.
  """
  files = [home / "processing_utils.py", home / "models" / "whisper" / "feature_extraction_whisper.py"]
  files += [file for name in PROCESSORS for file in (home / "models" / name).glob("image_processing_*.py")]
  seen: set[str] = set()
  for node in (node for file in files for node in ast.walk(ast.parse(file.read_text()))):
    if isinstance(node, ast.ClassDef) and node.name.endswith(("ImagesKwargs", "sorKwargs", "Processor", "Extractor")):
      for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
          seen.add(part.target.id)
        elif isinstance(part, ast.FunctionDef) and part.name == "__init__":
          seen |= {argument.arg for argument in (*part.args.args, *part.args.kwonlyargs)}
  return {"defaults": {}, **split(dict.fromkeys(seen - {"self"}, NOTHING))}


def model_types() -> list[str]:
  """Those that a table of zoo/convert reads."""
  from zoo.hub import tables

  return sorted({name for family in tables.families() for name in tables.of_family(family).MODEL_TYPES})


def of_class(kind: type) -> list[str]:
  """What a config class has beside its fields, and an entry of that name would replace."""
  return [name for name in dir(kind) if not name.startswith("__") and not callable(getattr(kind, name))]


def defaults(kind: type) -> dict[str, Any]:
  """The fields of a config class with their defaults."""
  if dataclasses.is_dataclass(kind):
    found = {}
    for field in dataclasses.fields(kind):
      made = field.default_factory() if field.default_factory is not dataclasses.MISSING else None
      found[field.name] = made if field.default is dataclasses.MISSING else field.default
  else:
    # A class of before version 5 takes its own fields by name and hands the rest to the class of all.
    parameters = inspect.signature(kind.__init__).parameters.values()
    found = {one.name: one.default for one in parameters if one.default is not one.empty}
    if kind.__name__ == "PretrainedConfig":
      found |= kind().to_dict()
  found = {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}  # As JSON has it.
  apart = ("model_type", "transformers_version", "id2label", "label2id", "self")
  return {name: value for name, value in sorted(found.items()) if name not in apart and plain(value)}


def plain(value: Any) -> bool:
  """Whether JSON holds it."""
  try:
    return json.loads(json.dumps(value)) == value
  except (TypeError, ValueError):
    return False


def reads(files: Iterable[pathlib.Path], of: str = "config") -> dict[str, Any]:
  """name -> what is taken where a config lacks it, NOTHING where that is no literal, of entries that are asked after.

  An entry that is read without asking must be a field, for configs that lack it could not be read. `of` is what the
  config is called, or how that ends.
  """
  found: dict[str, Any] = {}
  for file in files:
    if not file.is_file():
      continue
    fields = file.name.startswith("configuration_")
    for node in ast.walk(ast.parse(file.read_text())):
      if fields and isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        name, value = node.attr, NOTHING  # What a config class derives: an entry of that name goes before it.
      else:
        name, value = asked_after(node, fields or file.stem == "modeling_rope_utils", of)
      if name is not None and not name.startswith("__"):
        found[name] = value if found.get(name, value) == value else NOTHING
  return found


def asked_after(node: ast.AST, configuring: bool, of: str) -> tuple[str | None, Any]:
  """The entry that getattr, hasattr or `in` reads from a config, and the literal default."""
  if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
    if len(node.args) > 1 and is_config(node.args[0], configuring, of):
      return text(node.args[1]), literal(node.args[2]) if len(node.args) > 2 else NOTHING
  if (
    isinstance(node, ast.Compare)
    and isinstance(node.ops[0], ast.In)
    and is_config(node.comparators[0], configuring, of)
  ):
    return text(node.left), NOTHING
  return None, NOTHING


def text(node: ast.AST) -> str | None:
  """A string that is written out."""
  return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def is_config(node: ast.AST, configuring: bool, of: str) -> bool:
  """Whether an expression is called a model's config."""
  name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
  if name in ("self", "cls"):
    return configuring
  others = ("generation", "peft", "load_", "quantization", "compile") if of == "config" else ()
  return name.endswith(of) and not name.startswith(others)


def literal(node: ast.AST) -> Any:
  """The value of an expression that is written out, or NOTHING."""
  try:
    value = ast.literal_eval(node)
  except ValueError:
    return NOTHING
  return value if plain(value) else NOTHING


def split(seen: dict[str, Any]) -> dict[str, Any]:
  """Names with a value for where they are absent, and names without."""
  return {
    "absent": {name: value for name, value in sorted(seen.items()) if value is not NOTHING},
    "reads": sorted(name for name, value in seen.items() if value is NOTHING),
  }


def version() -> str:
  """Of the installed transformers, as a section of the file is called."""
  import transformers

  return f"transformers {transformers.__version__}"


def written(section: dict[str, Any]) -> str:
  """JSON with a line for each model_type: what a new version changes can be read."""
  types = ",\n".join(f"  {json.dumps(name)}: {json.dumps(known)}" for name, known in section["types"].items())
  others = ",\n".join(f' "{name}": {json.dumps(section[name])}' for name in ("common", "generation", "processors"))
  return f'{{\n{others},\n "types": {{\n{types}\n }}}}'


def main() -> None:
  """Writes the section of the installed version; the newest goes first."""
  held = json.loads(FILE.read_text()) if FILE.is_file() else {}
  own = version()
  held = {name: known for name, known in held.items() if name.split(".")[0] != own.split(".")[0]} | {own: facts()}
  sections = ",\n".join(f"{json.dumps(name)}: {written(held[name])}" for name in sorted(held, reverse=True))
  FILE.write_text(f"{{{sections}\n}}\n")


if __name__ == "__main__":
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  sys.path.insert(0, str(ROOT))
  main()
