"""Exports models to the hub's layout, for torch transformers: config.json and model.safetensors."""

import json
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from zoo.build import by_layer, sizes_of
from zoo.data.tokenizers.folder import FILES, has_tokenizer
from zoo.data.tokenizers.named import NAMED
from zoo.errors import UserError
from zoo.hub import tables
from zoo.hub.files import CONFIG, GENERATION, WEIGHTS
from zoo.hub.preprocessing import NESTED, PLAIN
from zoo.hub.preprocessing_config import config_of
from zoo.hub.sentence_carried import write_sentence_encoder
from zoo.hub.tensors import to_host, write_tensors
from zoo.storage import make_folder, replacing
from zoo.tree import flatten, mismatch


def save_hf(folder: str | os.PathLike, model: Any, params: Any) -> None:
  """Saves `model` and `params` in the hub's layout. Every process of a run must call it.

  Args:
    folder: created if missing; its config.json and model.safetensors are replaced, and preprocessor_config.json if
      the model has preprocessing for images or sounds (for the zoo's own it is only written if there is
      none). For a sentence encoder modules.json and the files that it names are replaced, too, for
      sentence-transformers. For a Whisper a generation_config.json is written if there is none.
      The files of a tokenizer are copied from the folder in the model's preprocessing, if it still exists and `folder`
      has no tokenizer; a tokenizer of the zoo's own (bytes, sotu) has no such files. Other files are left alone.
    model: from `zoo.build` or `zoo.load`.
    params: its parameters, as from `zoo.load`; may be sharded. Each array keeps its dtype.

  Raises:
    UserError: the family has no such layout, `params` are not this model's, or the folder cannot be written.

  >>> import jax.numpy as jnp
  >>> import zoo
  >>> model = zoo.build("gpt", vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  >>> params = model.init(jax.random.key(0), jnp.zeros((1, 8), int))["params"]
  >>> zoo.save_hf("tiny_gpt2", model, params)  # transformers.AutoModelForCausalLM.from_pretrained("tiny_gpt2") reads it
  >>> sorted(file.name for file in pathlib.Path("tiny_gpt2").iterdir())
  ['config.json', 'model.safetensors']
  """
  sizes = sizes_of(model)
  table = tables.of_family(model.spec["family"])
  tensors = hub_tensors(model, params)
  config = {"architectures": [table.HEADS[tables.head_of(table, sizes)][0]], **table.config(sizes)}
  config |= named_labels(sizes.get("num_classes"), model.preprocessing.get("classes"))
  folder, processor = pathlib.Path(folder), config_of(model)
  if not model.preprocessing.keys() & {"image", "sound"} and any((folder / name).exists() for name in (PLAIN, NESTED)):
    processor = None
  generation = table.generation(sizes) if hasattr(table, "generation") else {}
  write_files(folder, config, tensors, processor, generation)
  if jax.process_index() == 0:
    copy_tokenizer(model.preprocessing.get("tokenizer"), folder)
    sentence = model.preprocessing.get("sentence", getattr(table, "SENTENCE", None))
    if sentence is not None and tables.head_of(table, sizes) in (None, "encoder"):
      write_sentence_encoder(folder, sentence, sizes["dim"])


def named_labels(num_classes: int | None, names: Sequence[str] | None) -> dict[str, Any]:
  """The id2label and label2id of a model whose classes have names; {} for others.

  >>> named_labels(2, ["cat", "dog"])
  {'id2label': {'0': 'cat', '1': 'dog'}, 'label2id': {'cat': 0, 'dog': 1}}
  """
  if not names or len(names) != num_classes:
    return {}
  return {
    "id2label": {str(number): name for number, name in enumerate(names)},
    "label2id": {name: number for number, name in enumerate(names)},
  }


def copy_tokenizer(source: str | None, folder: pathlib.Path) -> None:
  """Copies the files of a published tokenizer, if `source` is a folder with one and `folder` has none.

  Raises:
    UserError: one cannot be read or written.
  """
  if source is None or source in NAMED or not has_tokenizer(pathlib.Path(source)):
    return
  if any((folder / name).exists() for name in FILES):
    return
  for name in FILES:
    file = pathlib.Path(source) / name
    if file.is_file():
      with replacing(folder / name) as copy:
        try:
          shutil.copyfile(file, copy)
        except OSError as error:
          raise UserError(f"{file} cannot be copied to {folder}: {error.strerror or error}.") from error


def write_files(
  folder: pathlib.Path,
  config: Mapping[str, Any],
  tensors: Mapping[str, np.ndarray],
  processor: Mapping[str, Any] | None = None,
  generation: Mapping[str, Any] | None = None,
) -> None:
  """Writes the files of a folder in the hub's layout. Every process calls it, and the first one writes.

  Args:
    folder: created if missing.
    config: entries of config.json.
    tensors: name -> array, of any shape and of a dtype of safetensors.
    processor: entries of preprocessor_config.json; None: it is left alone.
    generation: entries of generation_config.json, written if there is none.

  Raises:
    UserError: the folder cannot be written.
  """
  if jax.process_index() != 0:
    return
  make_folder(folder)
  with replacing(folder / CONFIG) as config_file, replacing(folder / WEIGHTS) as weights_file:
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    if processor is not None:
      with replacing(folder / PLAIN) as processor_file:
        processor_file.write_text(json.dumps(processor, indent=2, sort_keys=True) + "\n")
    write_tensors(weights_file, tensors, {"format": "pt"})
  if generation and not (folder / GENERATION).exists():
    with replacing(folder / GENERATION) as file:
      file.write_text(json.dumps(generation, indent=2, sort_keys=True) + "\n")


def hub_tensors(model: Any, params: Any, table: Any = None) -> dict[str, np.ndarray]:
  """Converts to name -> array as saved by the reference's class; also for gradients, which have the parameters' shapes.

  table: conversion table of zoo/convert; that of the model's family if None.
  """
  sizes = sizes_of(model)
  table = tables.of_family(model.spec["family"]) if table is None else table
  flat = flatten(by_layer(jax.tree.map(to_host, params)))
  table_rules = table.rules(sizes)
  rules = tables.by_ours(table_rules)
  problems = mismatch(dict.fromkeys(flat), dict.fromkeys(rules))
  if problems:
    raise UserError(f"The parameters do not fit this {model.spec['family']}: {problems}.")
  tensors = {rule.theirs: np.asarray(rule.value, np.int64) for rule in table_rules if not rule.ours}
  for path, array in flat.items():
    for rule in rules[path]:
      tensors[rule.theirs] = rule.write(array, tensors.get(rule.theirs))
  return tensors
