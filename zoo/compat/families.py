"""The old names, by the file of transformers that had them: what `zoo.compat` exports and `install` puts there."""

from types import ModuleType
from typing import Any

from zoo.compat import bart, bert, clip, decoders, distilbert, images, roberta, t5, whisper
from zoo.compat.pretrained import FlaxPreTrainedModel

# transformers' model -> our file, and how its names begin.
MODELS: dict[str, tuple[ModuleType, str]] = {
  "bart": (bart, "FlaxBart"),
  "bert": (bert, "FlaxBert"),
  "clip": (clip, "FlaxCLIP"),
  "dinov2": (images, "FlaxDinov2"),
  "distilbert": (distilbert, "FlaxDistilBert"),
  "gemma": (decoders, "FlaxGemma"),
  "gpt2": (decoders, "FlaxGPT2"),
  "llama": (decoders, "FlaxLlama"),
  "marian": (bart, "FlaxMarian"),
  "mistral": (decoders, "FlaxMistral"),
  "roberta": (roberta, "FlaxRoberta"),
  "t5": (t5, "FlaxT5"),
  "mt5": (t5, "FlaxMT5"),
  "vit": (images, "FlaxViT"),
  "whisper": (whisper, "FlaxWhisper"),
  "xlm_roberta": (roberta, "FlaxXLMRoberta"),
}
FILES = {f"transformers.models.{model}.modeling_flax_{model}": found for model, found in MODELS.items()}


def names_in(file: str) -> dict[str, Any]:
  """The old names of one file of transformers -> our classes."""
  module, front = FILES[file]
  return {name: value for name, value in vars(module).items() if name.startswith(front)}


def old_names() -> dict[str, Any]:
  """All old names -> our classes."""
  every = {name: value for file in FILES for name, value in names_in(file).items()}
  return {"FlaxPreTrainedModel": FlaxPreTrainedModel, **every}
