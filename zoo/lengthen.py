"""Turns a BERT or RoBERTa into a Longformer: python -m zoo.lengthen --model=FOLDER_OR_ID --out=FOLDER

Longformer: The Long-Document Transformer, https://arxiv.org/abs/2004.05150, section 5: the table of positions is
repeated until it is long enough, and the projections of global tokens begin as those of all tokens.
"""

import json
import os
import pathlib
import sys
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.build import build, sizes_of
from zoo.config.overrides import help_text, literal, require, split
from zoo.errors import UserError, exits_with_one_line, setting_up
from zoo.hosts.process import run
from zoo.hub.tokenizers import load_tokenizer
from zoo.hub.writing import save_hf
from zoo.json_files import read_json
from zoo.saving import load
from zoo.tree import flatten, unflatten

FLAGS = {
  "model": "a folder or a hub id of a BERT or RoBERTa",
  "out": "folder for the Longformer, which must have no config.json yet",
  "max_length": "tokens that it reads; 4096 by default",
  "window": "tokens that a token attends to, half of them on each side; 512 by default",
  "ignore": "entries of the model's config.json to leave unread, with commas between them",
}
ARGUMENTS = "vocab_size dim depth num_heads mlp_dim num_classes num_segments activation epsilon".split()
SEPARATORS = {"bert": 102, "roberta": 2}


def lengthened(
  model: Any, params: Any, *, max_length: int, window: int, separator: int | None = None
) -> tuple[Any, Any]:
  """A Longformer whose outputs are those of `model` for sequences of window / 2 tokens or fewer.

  Args:
    model, params: a BERT or RoBERTa, and its parameters. A BERT's head for next sentences is dropped.
    max_length, window, separator: of `zoo.models.longformer`; the family's usual separator if None.

  Raises:
    UserError: another family; an activation of BERT's head that Longformer's does not have; fewer tokens than before.
  """
  family, sizes = model.spec["family"], sizes_of(model)
  if family not in SEPARATORS:
    raise UserError(f"The model is a {family}. Only BERT and RoBERTa become a Longformer.")
  old, head = sizes["max_length"], sizes["head"]
  if max_length < old:
    raise UserError(f"max_length is {max_length}, the model reads {old} tokens already. Raise max_length.")
  if head == "next_sentence":
    raise UserError("The model's head is next_sentence, which a Longformer does not have. Load another one with head.")
  head = "mlm" if head == "pretraining" else head
  if family == "bert" and head == "mlm" and sizes["activation"] != "gelu":
    raise UserError(f"The activation of the head is {sizes['activation']}, a Longformer's is gelu. Take another model.")
  if separator is None:
    separator = SEPARATORS[family]
    if separator >= sizes["vocab_size"] and head not in ("question_answering", "multiple_choice"):
      separator = 0  # No other head has a use for it.
  pad = (0 if family == "bert" else 1) if sizes["pad"] is None else sizes["pad"]
  longer = build(
    "longformer",
    **{name: sizes[name] for name in ARGUMENTS},
    **{"max_length": max_length, "window": window, "head": head, "pad": pad, "separator": separator},
    pooler=model.pooler is not None,
    preprocessing=dict(model.preprocessing),
  )
  arrays = flatten(jax.device_get(params))
  table = arrays["positions/embedding"][-old:]
  before = (
    np.zeros((pad + 1, table.shape[1]), table.dtype) if family == "bert" else arrays["positions/embedding"][:-old]
  )
  arrays["positions/embedding"] = np.concatenate([before, np.resize(table, (max_length, table.shape[1]))])
  if family == "bert" and head == "classify":  # Its pooler is the layer before the classes.
    arrays = {name.replace("pooler/", "summary/"): array for name, array in arrays.items()}
  for name in list(arrays):
    for part in ("query", "key", "value"):
      if f"self_attention/{part}/" in name:
        arrays[name.replace(f"/{part}/", f"/global_{part}/")] = arrays[name]
  wanted = flatten(jax.eval_shape(longer.init, jax.random.key(0), *longer.example())["params"])
  return longer, unflatten({name: jnp.asarray(arrays[name]) for name in wanted})


def lengthen(
  source: str | os.PathLike,
  folder: str | os.PathLike,
  *,
  max_length: int = 4096,
  window: int = 512,
  ignore: Collection[str] = (),
) -> None:
  """Writes the Longformer made of a BERT or RoBERTa; texts of window / 2 tokens or fewer give the same outputs.

  Args:
    source: a folder in the hub's layout, a hub id, or a run.
    folder: for the Longformer in the hub's layout, with the tokenizer.
    max_length: tokens that it reads.
    window: tokens that a token attends to, half of them on each side.
    ignore: entries of the config.json to ignore, as in `zoo.load`.

  Raises:
    UserError: as `lengthened`, or `folder` has a model.
  """
  folder = pathlib.Path(folder)
  if (folder / "config.json").exists():
    raise UserError(f"{folder} has a model already. Choose another folder.")
  model, params = load(source, ignore=ignore)
  separator = load_tokenizer(source).sep if "tokenizer" in model.preprocessing else None
  longer, params = lengthened(model, params, max_length=max_length, window=window, separator=separator)
  save_hf(folder, longer, params)
  limits = folder / "tokenizer_config.json"
  if limits.exists():
    limits.write_text(json.dumps({**read_json(limits), "model_max_length": max_length}, indent=2))


@exits_with_one_line
def main(argv: list[str]) -> int:
  """Converts the model that the arguments name; returns 0 on success."""
  flags, _ = split(argv, FLAGS)
  flags.pop("traceback")
  if flags.pop("help"):
    print(help_text("python -m zoo.lengthen --model=FOLDER_OR_ID --out=FOLDER [--OPTION=VALUE]", FLAGS))
    return 0
  require(flags, ("model", "out"), FLAGS)
  numbers = {name: literal(flags[name]) for name in ("max_length", "window") if name in flags}
  if wrong := [name for name, value in numbers.items() if not isinstance(value, int)]:
    raise UserError(f"--{wrong[0]} is {flags[wrong[0]]}. It must be an int.")
  with setting_up():
    lengthen(flags["model"], flags["out"], ignore=[n for n in flags.get("ignore", "").split(",") if n], **numbers)
  print(f"{flags['out']} has a Longformer.")
  return 0


if __name__ == "__main__":
  run(main, sys.argv[1:])
