"""The old auto classes: a class for a config or for files. transformers 4, models/auto/modeling_flax_auto.py."""

import os
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from zoo.compat import bart, bert, clip, composed_models, decoders, distilbert, dual, images, roberta, t5, whisper
from zoo.compat.config import entries_of
from zoo.compat.folders import folder_of
from zoo.errors import UserError, shown
from zoo.hub.files import CONFIG, read_json

# model_type -> our file, and the prefix of its classes' names.
MODELS: dict[str, tuple[Any, str]] = {
  "bart": (bart, "FlaxBart"),
  "bert": (bert, "FlaxBert"),
  "clip": (clip, "FlaxCLIP"),
  "encoder-decoder": (composed_models, "FlaxEncoderDecoder"),
  "dinov2": (images, "FlaxDinov2"),
  "distilbert": (distilbert, "FlaxDistilBert"),
  "gemma": (decoders, "FlaxGemma"),
  "gpt2": (decoders, "FlaxGPT2"),
  "llama": (decoders, "FlaxLlama"),
  "marian": (bart, "FlaxMarian"),
  "mistral": (decoders, "FlaxMistral"),
  "mt5": (t5, "FlaxMT5"),
  "roberta": (roberta, "FlaxRoberta"),
  "t5": (t5, "FlaxT5"),
  "vision-encoder-decoder": (composed_models, "FlaxVisionEncoderDecoder"),
  "vision-text-dual-encoder": (dual, "FlaxVisionTextDualEncoder"),
  "vit": (images, "FlaxViT"),
  "whisper": (whisper, "FlaxWhisper"),
  "xlm-roberta": (roberta, "FlaxXLMRoberta"),
}


class ByConfig(Mapping):
  """Mapping config class -> old class, like FLAX_MODEL_MAPPING.

  Args:
    classes: model_type -> old class.
  """

  def __init__(self, classes: Mapping[str, Any]):
    self.classes = classes

  def __getitem__(self, config_class: Any) -> Any:
    return self.classes[config_class.model_type]

  def __iter__(self) -> Iterator[Any]:
    return iter(kind.config_class for kind in self.classes.values())

  def __len__(self) -> int:
    return len(self.classes)


class FlaxAutoModel:
  """Chooses the class: `from_pretrained` by the config.json, `from_config` by the config."""

  CLASSES: ClassVar[dict[str, Any]] = {}

  def __init__(self):
    raise UserError(f"{type(self).__name__} makes models by from_pretrained(folder) and from_config(config).")

  @classmethod
  def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
    """Loads a folder with the class of its model_type; arguments as in its `from_pretrained`.

    Raises:
      UserError: there is no such class for that model_type.
    """
    config = kwargs.get("config")
    if config is None:
      fetching = {name: kwargs[name] for name in ("cache_dir", "token", "local_files_only") if kwargs.get(name)}
      folder = folder_of(os.fspath(pretrained_model_name_or_path), kwargs.get("subfolder") or "", **fetching)
      config = read_json(folder / CONFIG)
    return cls._class(config).from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

  @classmethod
  def from_config(cls, config: Any, **kwargs: Any) -> Any:
    """A randomly initialised model of a config."""
    return cls._class(config)(config, **kwargs)

  @classmethod
  def _class(cls, config: Any) -> Any:
    kind = entries_of(config).get("model_type")
    if kind not in cls.CLASSES:
      raise UserError(f"{cls.__name__} has no model_type {shown(kind)}. It has: {', '.join(sorted(cls.CLASSES))}.")
    return cls.CLASSES[kind]


def _classes(*endings: str) -> dict[str, Any]:
  """model_type -> its class with one of these suffixes, the first existing one."""
  classes = {}
  for kind, (module, front) in MODELS.items():
    name = next((name for ending in endings if (name := f"{front}{ending}") in vars(module)), None)
    if name is not None:
      classes[kind] = vars(module)[name]
  return classes


# Suffix of FlaxAutoModelFor, and name of the mapping -> suffixes of class names.
_TASKS = {
  ("AudioClassification", "AUDIO_CLASSIFICATION"): ("ForAudioClassification",),
  ("CausalLM", "CAUSAL_LM"): ("ForCausalLM", "LMHeadModel"),
  ("ImageClassification", "IMAGE_CLASSIFICATION"): ("ForImageClassification",),
  ("MaskedLM", "MASKED_LM"): ("ForMaskedLM",),
  ("MultipleChoice", "MULTIPLE_CHOICE"): ("ForMultipleChoice",),
  ("NextSentencePrediction", "NEXT_SENTENCE_PREDICTION"): ("ForNextSentencePrediction",),
  ("PreTraining", "PRETRAINING"): ("ForPreTraining", "ForMaskedLM", "ForConditionalGeneration"),
  ("QuestionAnswering", "QUESTION_ANSWERING"): ("ForQuestionAnswering",),
  ("Seq2SeqLM", "SEQ_TO_SEQ_CAUSAL_LM"): ("MTModel", "ForConditionalGeneration"),
  ("SequenceClassification", "SEQUENCE_CLASSIFICATION"): ("ForSequenceClassification",),
  ("SpeechSeq2Seq", "SPEECH_SEQ_2_SEQ"): ("ForConditionalGeneration",),
  ("TokenClassification", "TOKEN_CLASSIFICATION"): ("ForTokenClassification",),
  ("Vision2Seq", "VISION_2_SEQ"): (),
}
# Composed models are found by their task.
_COMPOSED = {
  "Seq2SeqLM": {"encoder-decoder": composed_models.FlaxEncoderDecoderModel},
  "Vision2Seq": {"vision-encoder-decoder": composed_models.FlaxVisionEncoderDecoderModel},
}
_SOUND = {"SpeechSeq2Seq": True, "Seq2SeqLM": False, "PreTraining": None}


def _tasks() -> Iterator[tuple[str, Any]]:
  for (name, mapping), endings in _TASKS.items():
    sound = _SOUND.get(name)
    classes = {kind: x for kind, x in _classes(*endings).items() if sound is None or (kind == "whisper") == sound}
    classes |= _COMPOSED.get(name, {})
    doc = {"__doc__": FlaxAutoModel.__doc__, "CLASSES": classes, "__module__": __name__}
    yield f"FlaxAutoModelFor{name}", type(f"FlaxAutoModelFor{name}", (FlaxAutoModel,), doc)
    yield f"FLAX_MODEL_FOR_{mapping}_MAPPING", ByConfig(classes)


_APART = {kind for classes in _COMPOSED.values() for kind in classes}
FlaxAutoModel.CLASSES = {kind: found for kind, found in _classes("Model").items() if kind not in _APART}
FLAX_MODEL_MAPPING = ByConfig(FlaxAutoModel.CLASSES)
globals().update(_tasks())
