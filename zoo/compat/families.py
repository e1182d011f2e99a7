"""Old names by their file in transformers, exported by `zoo.compat` and installed by `install`."""

from typing import Any

from zoo.compat import auto
from zoo.compat.pretrained import FlaxPreTrainedModel

AUTO = "transformers.models.auto.modeling_flax_auto"
_MODELS = {kind.replace("-", "_"): found for kind, found in auto.MODELS.items()}
FILES = {f"transformers.models.{model}.modeling_flax_{model}": found for model, found in _MODELS.items()}

FUNCTIONS = ("shift_tokens_right",)


def names_in(file: str) -> dict[str, Any]:
  """The old names of one file of transformers -> our classes."""
  module, front = FILES[file]
  return {name: value for name, value in vars(module).items() if name.startswith(front)}


def functions_in(file: str) -> dict[str, Any]:
  """Functions that training scripts import from a file of transformers -> ours."""
  functions = vars(FILES[file][0])
  return {name: functions[name] for name in FUNCTIONS if name in functions}


def auto_names() -> dict[str, Any]:
  """Names of auto classes and mappings -> ours."""
  return {name: value for name, value in vars(auto).items() if name.startswith(("FlaxAutoModel", "FLAX_MODEL_"))}


def old_names() -> dict[str, Any]:
  """All old names -> our classes."""
  every = {name: value for file in FILES for name, value in names_in(file).items()}
  return {"FlaxPreTrainedModel": FlaxPreTrainedModel, **auto_names(), **every}
