"""What stands where transformers is not installed: its config classes as ours, and errors for what it does not have."""

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
# How a name ends -> what the zoo has instead.
INSTEAD = {
  "Tokenizer": "zoo.load_tokenizer(folder) reads a folder's tokenizer.",
  "Processor": "zoo.load_processor(folder) reads what makes a model's images or sounds.",
  "FeatureExtractor": "zoo.load_processor(folder) reads what makes a model's images or sounds.",
}


class ConfigOfType(Config):
  """A `Config` that knows its model_type. Entries that it leaves out are the model's defaults."""

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
    """As `Config.from_pretrained`, of the class of the file's model_type where there is one."""
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
  """What is said of a name that the stand-in does not have.

  >>> lacks("BertModel").partition(". ")[2]
  "Did you mean 'FlaxBertModel'? For everything else: pip install transformers."
  """
  last = name.rpartition(".")[2]
  kind = last.removesuffix("Fast")
  hint = next((way for ending, way in INSTEAD.items() if kind.endswith(ending)), "")
  known = [*old_names(), *NAMES, "AutoConfig", "PretrainedConfig"]
  # Models are asked for more often than the modules in them, whose names are nearly the same.
  known = [one for one in known if one.endswith("Module") == last.endswith("Module")]
  hint = f" {hint}" if hint else did_you_mean(last, known)
  return (
    "transformers is not installed, and zoo.compat.install() made this stand-in, which has the old Flax classes and "
    f"their configs: it has no {name}.{hint} For everything else: pip install transformers."
  )


class StandIn(ModuleType):
  """`transformers` where it is not installed: our names, and an error that says so for all others."""

  def __getattr__(self, name: str) -> Any:
    raise AttributeError(name if name.startswith("__") else lacks(name))


class Finder:
  """Of `sys.meta_path`: an error that says why for what is imported from the stand-in, and is not there.

  `from transformers import X` looks for a module transformers.X where the package has no such attribute. What an
  attribute's error says is lost there.
  """

  def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
    """None for all but modules of transformers."""
    if name.startswith("transformers."):
      # Named after the part that would be missing, the error would be swallowed for Python's own.
      raise ModuleNotFoundError(lacks(name.removeprefix("transformers.")), name="transformers")
