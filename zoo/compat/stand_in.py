"""A stand-in for transformers if it is not installed: config classes, and helpful errors for everything else."""

import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar

from zoo.compat.config import Config, entries_of
from zoo.compat.families import old_names
from zoo.errors import did_you_mean

# Class -> its folder in transformers/models, and its model_type. As of transformers 4.57.1.
NAMES = {
  "BartConfig": ("bart", "bart"),
  "BertConfig": ("bert", "bert"),
  "CLIPConfig": ("clip", "clip"),
  "CLIPTextConfig": ("clip", "clip_text_model"),
  "CLIPVisionConfig": ("clip", "clip_vision_model"),
  "Dinov2Config": ("dinov2", "dinov2"),
  "DistilBertConfig": ("distilbert", "distilbert"),
  "EncoderDecoderConfig": ("encoder_decoder", "encoder-decoder"),
  "GPT2Config": ("gpt2", "gpt2"),
  "GemmaConfig": ("gemma", "gemma"),
  "LlamaConfig": ("llama", "llama"),
  "MT5Config": ("mt5", "mt5"),
  "MarianConfig": ("marian", "marian"),
  "MistralConfig": ("mistral", "mistral"),
  "RobertaConfig": ("roberta", "roberta"),
  "T5Config": ("t5", "t5"),
  "ViTConfig": ("vit", "vit"),
  "VisionEncoderDecoderConfig": ("vision_encoder_decoder", "vision-encoder-decoder"),
  "VisionTextDualEncoderConfig": ("vision_text_dual_encoder", "vision-text-dual-encoder"),
  "WhisperConfig": ("whisper", "whisper"),
  "XLMRobertaConfig": ("xlm_roberta", "xlm-roberta"),
}
# Suffix of a name -> the zoo's alternative.
INSTEAD = {
  "Tokenizer": "zoo.load_tokenizer(folder) reads a folder's tokenizer.",
  "Processor": "zoo.load_processor(folder) reads what makes a model's images or sounds.",
  "FeatureExtractor": "zoo.load_processor(folder) reads what makes a model's images or sounds.",
}


class ConfigOfType(Config):
  """A `Config` with a fixed model_type. Missing entries are the model's defaults."""

  model_type: ClassVar[str] = ""

  def __init__(self, **entries: Any):
    super().__init__(**{"model_type": type(self).model_type, **entries})


CONFIGS: dict[str, type[Config]] = {
  name: type(name, (ConfigOfType,), {"model_type": kind, "__module__": __name__, "__doc__": ConfigOfType.__doc__})
  for name, (_, kind) in NAMES.items()
}


class AutoConfig:
  """Chooses the config class by the model_type of a config.json."""

  @classmethod
  def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Config:
    """As `Config.from_pretrained`, with the class of the file's model_type if there is one."""
    entries: Mapping[str, Any] = entries_of(Config.from_pretrained(pretrained_model_name_or_path, **kwargs))
    kinds = {kind: CONFIGS[name] for name, (_, kind) in NAMES.items()}
    return kinds.get(str(entries.get("model_type")), Config).from_dict(entries)


def config_names() -> dict[str, dict[str, Any]]:
  """File of transformers -> the config classes in it."""
  files: dict[str, dict[str, Any]] = {
    "transformers.configuration_utils": {"PretrainedConfig": Config, "PreTrainedConfig": Config},
    "transformers.models.auto.configuration_auto": {"AutoConfig": AutoConfig},
  }
  for name, (folder, _) in NAMES.items():
    files.setdefault(f"transformers.models.{folder}.configuration_{folder}", {})[name] = CONFIGS[name]
  return files


def lacks(name: str) -> str:
  """The error message for a name that the stand-in does not have.

  >>> lacks("BertModel").partition(". ")[2]
  "Did you mean 'FlaxBertModel'? For everything else: pip install transformers."
  """
  last = name.rpartition(".")[2]
  kind = last.removesuffix("Fast")
  hint = next((way for ending, way in INSTEAD.items() if kind.endswith(ending)), "")
  names = [*old_names(), *NAMES, "AutoConfig", "PretrainedConfig"]
  # Models are more likely meant than modules, whose names are similar.
  names = [candidate for candidate in names if candidate.endswith("Module") == last.endswith("Module")]
  hint = f" {hint}" if hint else did_you_mean(last, names)
  return (
    "transformers is not installed, and zoo.compat.install() made this stand-in, which has the old Flax classes and "
    f"their configs: it has no {name}.{hint} For everything else: pip install transformers."
  )


class StandIn(ModuleType):
  """The module `transformers` if it is not installed: our names, and an error for all others."""

  def __getattr__(self, name: str) -> Any:
    raise AttributeError(name if name.startswith("__") else lacks(name))


class Finder:
  """Import hook for `sys.meta_path` that explains failed imports from the stand-in.

  `from transformers import X` looks for a module transformers.X if the package has no such attribute. The message of an
  AttributeError is lost then.
  """

  def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
    """None for all but modules of transformers."""
    if name.startswith("transformers."):
      # With the missing module as its name, Python would replace the error by its own.
      raise ModuleNotFoundError(lacks(name.removeprefix("transformers.")), name="transformers")
