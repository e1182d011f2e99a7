"""Kinds of models, by inputs and outputs, which determine the tasks they fit."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from zoo.build import sizes_of
from zoo.errors import family_of
from zoo.generate.steps import encodes

# What a model does -> its description; {reads} and {classes} are filled in.
DOES = {
  "classify": "classifies {reads} into {classes} classes",
  "score": "gives {reads} a number",
  "classify_tokens": "classifies tokens into {classes} classes",
  "question_answering": "finds answers in texts",
  "multiple_choice": "chooses among texts",
  "next_token": "continues texts",
  "masked_token": "predicts masked tokens",
  "answer": "answers {reads} with texts",
  "compare": "compares images and texts",
  "encode": "makes vectors of {reads}",
}


class ModelKind(NamedTuple):
  """A model's inputs ("texts", "images", "sounds", "images and texts"), what it does (a key of DOES), its classes."""

  reads: str
  does: str
  num_classes: int | None = None


def model_kind(model: Any) -> ModelKind:
  """The kind of a model of the zoo, by its parts.

  >>> import zoo
  >>> model_kind(zoo.build("vit", image_size=4, patch_size=2, dim=8, depth=1, num_heads=2, num_classes=3))
  ModelKind(reads='images', does='classify', num_classes=3)
  """
  if hasattr(model, "encode_image") and hasattr(model, "encode_text"):
    return ModelKind("images and texts", "compare")
  example = model.example()[0]
  texts = not isinstance(example, Mapping) and np.issubdtype(example.dtype, np.integer)
  reads = "texts" if texts else "images" if isinstance(example, Mapping) or example.ndim == 4 else "sounds"
  if getattr(model, "choose", None) is not None:
    return ModelKind(reads, "multiple_choice")
  if getattr(model, "answer", None) is not None:
    return ModelKind(reads, "question_answering")
  num_classes = sizes_of(model).get("num_classes") if model.spec else None
  if num_classes is not None:
    tokens = getattr(model, "classify_tokens", None) is not None
    return ModelKind(reads, "classify_tokens" if tokens else "score" if num_classes == 1 else "classify", num_classes)
  if getattr(model, "mlm", None) is not None:
    return ModelKind(reads, "masked_token")
  if model.decodes and not encodes(model):
    return ModelKind(reads, "next_token")
  return ModelKind(reads, "answer" if model.decodes else "encode")


def described(model: Any) -> str:
  """A model in a few words: "bert that classifies texts into 3 classes"."""
  reads, does, num_classes = model_kind(model)
  return f"{family_of(model)} that {DOES[does].format(reads=reads, classes=num_classes)}"
