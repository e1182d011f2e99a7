"""Training settings from a sentence encoder's folder: pooling, prompts and lengths, which the result keeps."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from zoo.embed import PADDED, POOLED
from zoo.errors import UserError
from zoo.hub.sentence_carried import carried_encoder
from zoo.hub.sentence_encoder import MODULES, home_of

NAMES = ("query", "document")  # Of prompts that a folder may have for the two sides of a search.


def sentence_encoder(folder: Any, model: Any, objective: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
  """The trained model's `preprocessing["sentence"]`; see `zoo.hub.sentence_carried`.

  Args:
    folder: of the model.
    model: that is trained; it carries what its folder says.
    objective, data: sections of the config: what they have goes first.

  Raises:
    UserError: vectors are made of the states in a way that cannot be trained.
  """
  family = model.spec["family"]
  if family in (*PADDED, *POOLED):
    raise UserError(f"{folder}: a {family} has its own pooling. Train it with images, or choose an encoder like BERT.")
  carried = model.preprocessing.get("sentence")
  home = home_of(folder) if isinstance(folder, pathlib.Path) else None
  if carried is None and home is not None:
    raise UserError(
      f"{home / MODULES} has other modules than a Pooling and a Normalize beside the encoder, which the zoo does not "
      "train. Take that file away to begin with the mean over tokens."
    )
  sentence: dict[str, Any] = {"pooling": ["mean"], "unit": False, **(carried or {})}
  if not sentence.get("include_prompt", True):
    raise UserError(f"{folder}: its pooling leaves out the prompt (include_prompt), which the zoo does not train.")
  if sentence.get("lower"):
    raise UserError(f"{folder}: texts become lower case first (do_lower_case), which the zoo does not train.")
  if "pooling" in objective:
    sentence["pooling"] = list(objective["pooling"])
  prompts = dict(sentence.get("prompts") or {})
  prompts |= {name: data[f"{name}_prompt"] for name in NAMES if f"{name}_prompt" in data}
  sentence["prompts"] = prompts
  carried_encoder(
    model.clone(preprocessing_json=json.dumps({"sentence": sentence})), pathlib.Path()
  )  # Refuses what is none.
  return sentence


def data_of(sentence: Mapping[str, Any], section: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
  """Options of the section of data that follow: prompts, and the most tokens of a text.

  Of texts that are compared both ways, with a score, each has the default prompt.
  """
  prompts, default = sentence["prompts"], sentence.get("prompt")
  names = dict.fromkeys(NAMES, default) if "score_field" in section else {n: n for n in NAMES}
  texts = {f"{name}_prompt": prompts.get(names[name] or "", prompts.get(default or "", "")) for name in NAMES}
  options = {name: text for name, text in texts.items() if text and name not in data}
  limit = sentence.get("max_length")
  if limit is not None and "max_length" not in data:
    options["max_length"] = min(limit, section["max_length"])
  return options
