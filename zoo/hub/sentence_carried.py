"""Sentence encoder settings stored with a model, and its files in the layout of sentence-transformers.

A model's `preprocessing["sentence"]` is plain data, of which every entry may be left out:

    {"pooling": ["mean"], "unit": True,                 of the states of tokens; whether vectors have length 1
     "include_prompt": True,                            whether the tokens of a prompt are pooled with the others
     "prompts": {"query": "..."}, "prompt": "query",    beginnings of texts by name, and the one by default
     "max_length": 256, "lower": False, "truncate_dim": None}
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from zoo.errors import UserError, shown
from zoo.hub.sentence_encoder import MODULES, PROMPTS, SentenceEncoder, home_of, read_sentence_encoder
from zoo.hub.sentence_modules import FLAGS, Normalize, Pooling
from zoo.pooling import POOLS
from zoo.storage import make_folder, replacing

KEYS = ("pooling", "unit", "include_prompt", "prompts", "prompt", "max_length", "lower", "truncate_dim")
FOLDERS = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}


def sentence_entries(folder: pathlib.Path) -> dict[str, Any]:
  """{"sentence": what a model carries} of a folder with modules.json; {} of others, and of more than a pooling.

  Old versions wrote the encoder into a folder 0_Transformer beside that file. A Dense or a LayerNorm after the pooling
  has weights of its own, which a model of the zoo does not have.
  """
  home = home_of(folder)
  if home is None:
    return {}
  try:
    encoder = read_sentence_encoder(home)
  except UserError:  # Those who embed with it will say what is wrong.
    return {}
  is_plain = [type(module) for module in encoder.modules] in ([Pooling], [Pooling, Normalize])
  if encoder.static or encoder.folder != folder or not is_plain:
    return {}
  pooling = encoder.modules[0]
  assert isinstance(pooling, Pooling)
  default = next((name for name, text in encoder.prompts.items() if encoder.prompt and text == encoder.prompt), None)
  entries = {
    "pooling": list(pooling.modes),
    "unit": len(encoder.modules) == 2,
    "include_prompt": pooling.include_prompt,
    "prompts": dict(encoder.prompts),
    "prompt": default,
    "max_length": encoder.max_length,
    "lower": encoder.lower,
    "truncate_dim": encoder.truncate_dim,
  }
  return {"sentence": entries}


def carried_encoder(model: Any, folder: pathlib.Path) -> SentenceEncoder:
  """The sentence encoder that a model carries; the mean over the tokens where it carries none.

  Args:
    model: of the zoo.
    folder: of its tokenizer.

  Raises:
    UserError: an entry that is unknown, or a pooling that is none.
  """
  entries = getattr(model, "preprocessing", {}).get("sentence")
  if entries is None:
    return SentenceEncoder(folder)
  unknown = [name for name in entries if name not in KEYS]
  if unknown:
    raise UserError(f"preprocessing.sentence has no {shown(unknown[0])}. It has: {', '.join(KEYS)}.")
  modes = tuple(entries.get("pooling", ["mean"]))
  if not modes or not set(modes) <= set(POOLS):
    raise UserError(f"preprocessing.sentence.pooling is {list(modes)}. It may have: {', '.join(POOLS)}.")
  where = "preprocessing.sentence"
  pooling = Pooling(where, modes, entries.get("include_prompt", True))
  prompts = entries.get("prompts") or {}
  return SentenceEncoder(
    folder,
    (pooling, Normalize(where)) if entries.get("unit") else (pooling,),
    max_length=entries.get("max_length"),
    lower=entries.get("lower", False),
    prompts=prompts,
    prompt=prompts.get(entries.get("prompt") or "", ""),
    truncate_dim=entries.get("truncate_dim"),
  )


def write_sentence_encoder(folder: pathlib.Path, entries: Mapping[str, Any], dim: int) -> None:
  """Writes modules.json and what it names, beside the weights.

  Args:
    folder: of the weights.
    entries: what the model carries.
    dim: width of its hidden states.

  Raises:
    UserError: the folder cannot be written.
  """
  kinds = ["Transformer", "Pooling", *(["Normalize"] if entries.get("unit") else [])]
  listed = [
    {"idx": i, "name": str(i), "path": FOLDERS[kind], "type": f"sentence_transformers.models.{kind}"}
    for i, kind in enumerate(kinds)
  ]
  modes = entries.get("pooling", ["mean"])
  # In the order of flags, in which several are joined; another order is none that these files can say.
  ordered = [mode for mode in FLAGS.values() if mode in modes]
  if ordered != list(modes):
    raise UserError(f"sentence-transformers joins poolings in the order {ordered}, the model has {list(modes)}.")
  pooling = {"word_embedding_dimension": dim, **{flag: mode in modes for flag, mode in FLAGS.items()}}
  pooling["include_prompt"] = entries.get("include_prompt", True)
  prompts = {"prompts": entries.get("prompts") or {}, "default_prompt_name": entries.get("prompt")}
  prompts |= {"similarity_fn_name": "cosine"}
  if entries.get("truncate_dim") is not None:
    prompts["truncate_dim"] = entries["truncate_dim"]
  files = {
    MODULES: listed,
    PROMPTS: prompts,
    "sentence_bert_config.json": {
      "max_seq_length": entries.get("max_length"),
      "do_lower_case": entries.get("lower", False),
    },
    f"{FOLDERS['Pooling']}/config.json": pooling,
  }
  for name, content in files.items():
    make_folder((folder / name).parent)
    with replacing(folder / name) as file:
      file.write_text(json.dumps(content, indent=2) + "\n")
