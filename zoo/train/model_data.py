"""Fills a `data` section with the model's sizes, processor and tokenizer if it does not set its own."""

import inspect
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.build import sizes_of
from zoo.config import registry
from zoo.config.loading import without
from zoo.config.registry import lookup, names
from zoo.config.schema import read_init, resolve
from zoo.data.bad_records import BadRecord, without_bad
from zoo.data.columns import length
from zoo.data.tokenizers import tokenizer as open_tokenizer
from zoo.data.tokenizers.base import Tokenizer
from zoo.data.tokenizers.named import NAMED
from zoo.data.tokenizers.open_clip import is_open_clip
from zoo.errors import UserError, shown
from zoo.hub import open_clip_images, preprocessing
from zoo.hub.files import CONFIG, is_published, read_json
from zoo.hub.ids import folder_of
from zoo.hub.processors import PatchProcessor
from zoo.hub.tokenizers import local_name
from zoo.preprocessing import of
from zoo.storage import as_path, is_remote

PROBE = "A photo of 2 cats, and their names."


def preprocessing_of_source(source: Any) -> dict[str, Any]:
  """The preprocessing of anything that `zoo.load` reads; no weights are read."""
  folder: Any = as_path(source) if is_remote(source) else folder_of(source)
  local = not is_remote(source) and not (folder / preprocessing.MODEL).exists()
  if local and is_open_clip(folder):
    return open_clip_images.preprocessing_of(folder)
  if local and is_published(folder):
    return preprocessing.preprocessing_of_published(folder, read_json(folder / CONFIG))
  return preprocessing.preprocessing_of_saved(folder)


def initial_preprocessing(config: Any) -> dict[str, Any]:
  """Preprocessing of the model to train: that of `init`, updated by `model.preprocessing` of the config."""
  init = config.get("init")
  source = read_init(resolve(init))[0] if init else None
  by_hand = resolve(config.model).get("preprocessing") or {}
  return {**(preprocessing_of_source(source) if source else {}), **by_hand}


def with_preprocessing_of_run(config: Any, folder: Any) -> Any:
  """The config with the preprocessing of the run in `folder`; unchanged if there is no run yet.

  A run that started without preprocessing resumes without, even if `init` has some.
  """
  if not (folder / CONFIG).exists():
    return config
  config = config.copy_and_resolve_references().unlock()
  begun = preprocessing.preprocessing_of_config(folder)
  if begun and "preprocessing" not in config.model:
    config.model.preprocessing = begun
  config.init = None
  return config.lock()


def with_preprocessing_of_model(config: Any, model: Any) -> Any:
  """The config with its model's preprocessing, so that the run can resume without its `init`."""
  carries = {name: entry for name, entry in model.preprocessing.items() if name != "classes"}  # Of the data.
  if not carries.keys() - {"tokenizer"}:
    return config
  config = config.copy_and_resolve_references().unlock()
  config.model.preprocessing = carries
  return config.lock()


def with_tokenizer(model: Any, tokenizer: Any) -> Any:
  """The model with its training tokenizer in its preprocessing."""
  if not isinstance(tokenizer, Tokenizer):
    return model
  name = tokenizer.name if tokenizer.name in NAMED else os.path.abspath(os.path.expanduser(tokenizer.name))
  return model.clone(preprocessing_json=json.dumps({**model.preprocessing, "tokenizer": name}))


def records_for(model: Any, data: Any, *, where: str = "data", training: bool = False) -> Any:
  """The records of a `data` section for a model; records themselves pass through.

  Missing entries are the model's: `tokenizer`, `image_size` and, for a published model, `max_length` of
  captions. Images of an evaluation are resized and cropped by the model's processor, unless the section has a `fit`
  or a `background`, or another `image_size`. Training has the `fit` of its pipeline.

  Args:
    model: from the zoo.
    data: a section, or records.
    where: name of the section in messages.
    training: whether the records are trained on.

  Raises:
    UserError: images or tokens do not fit the model.
  """
  if isinstance(data, Mapping) or hasattr(data, "to_dict"):
    section = without(data, "augment", "workers")
    processor = None if section.get("name") not in _pipelines("processor") else _processor(model, section, training)
    limit = sizes_of(model).get("max_length") if getattr(model, "spec", None) else None
    section = filled(with_local_tokenizer(section), defaults(model), limit)
    if processor is None:
      records = registry.build("data", section)
    else:
      records = registry.build("data", section, offers={"processor": processor})
  else:
    records = data
  records = records if training else without_bad(records)
  info = getattr(records, "info", {})
  if isinstance(info.get("tokenizer"), Tokenizer):
    check_tokenizer(model, info["tokenizer"], where, training=training)
  check_images(model, records, where)
  return records


def _processor(model: Any, section: Mapping[str, Any], training: bool) -> Any:
  """The processor for the images or sounds of this section; None: its `fit` is used."""
  if section["name"] in _pipelines("audio_field"):
    return preprocessing.sound_processor(model)
  processor = preprocessing.image_processor(model)
  if _takes_patches(model) and (training or processor is None):
    why = "which no data pipeline provides for training. Train a model of one image_size, e.g. a siglip"
    if not training:
      why = "but carries no processor for them. Use one whose folder has a preprocessor_config.json"
    raise UserError(f"A {model.spec['family']} takes patches of images of any shape, {why}.")
  if isinstance(processor, PatchProcessor):
    given = [name for name in ("fit", "image_size") if name in section]
    if given:
      raise UserError(f"data.{given[0]} is {section[given[0]]!r}, but the model takes any image shape. Leave it out.")
    return processor
  if processor is None or training or "fit" in section or "background" in section:
    return None
  size = section.get("image_size")
  if processor.shape is None and size is None:
    raise UserError("The model's processor returns images of several sizes. Set image_size in the evaluator's data.")
  return processor if size is None or processor.shape == (size, size) else None


def _takes_patches(model: Any) -> bool:
  """Whether the images of a model are dicts of patches."""
  return hasattr(model, "example") and isinstance(model.example()[0], Mapping)


def defaults(model: Any) -> dict[str, Any]:
  """Defaults of pipeline options from the model."""
  carried, sizes = of(model), {}
  processor = preprocessing.image_processor(model)
  if not isinstance(processor, PatchProcessor):
    size = getattr(model, "image_size", None)
    if processor is not None and processor.shape is not None and processor.shape[0] == processor.shape[1]:
      size = processor.shape[0]
    sizes |= {} if size is None else {"image_size": size}
  if "tokenizer" in carried:
    sizes["tokenizer"] = carried["tokenizer"]
  if {"image", "text"} & carried.keys() and hasattr(model, "encode_text"):
    # Captions as in the published model's training: padded to its full length.
    sizes.setdefault("tokenizer", None)
    limits = [model.max_length, None if sizes["tokenizer"] is None else open_tokenizer(sizes["tokenizer"]).max_length]
    sizes["max_length"] = min(limit for limit in limits if limit is not None)
  return sizes


def filled(section: Mapping[str, Any], options: Mapping[str, Any], limit: int | None = None) -> dict[str, Any]:
  """Adds missing `options` that their pipelines take to a section of data and those within it.

  limit: maximum tokens that the model takes. A missing max_length is the pipeline's default up to that, and reported.
  """
  done = dict(section)
  if isinstance(done.get("data"), Mapping):
    done["data"] = filled(done["data"], options, done.get("max_length", limit))
  if isinstance(done.get("members"), Mapping):
    fill = lambda data: filled(data, options, limit) if isinstance(data, Mapping) else data
    done["members"] = {name: fill(data) for name, data in done["members"].items()}
  if done.get("name") in names("data"):
    takes = inspect.signature(lookup("data", done["name"])).parameters
    for name, value in options.items():
      if name in takes and name not in done and (name != "max_length" or "image_size" in takes):
        if value is None:
          raise UserError(
            f"{done['name']} needs a tokenizer: the folder of this model holds none. Download its files, or name one."
          )
        done[name] = value
    if "max_length" in takes and "max_length" not in done and "image_size" not in takes:
      done["max_length"] = length(done["name"], takes["max_length"].default, limit)
  return done


def with_local_tokenizer(section: Mapping[str, Any]) -> dict[str, Any]:
  """Replaces hub ids of tokenizers by local folders in a section of data and those within it."""
  done = dict(section)
  for name, value in section.items():
    if name == "tokenizer":
      done[name] = local_name(value)
    elif isinstance(value, Mapping):
      done[name] = with_local_tokenizer(value)
  return done


def tokenizer_for(model: Any, name: str | None, otherwise: str, what: str) -> Tokenizer:
  """The tokenizer `name`, or the model's own, or `otherwise` if it has none; UserError if it does not fit the model.

  Args:
    model: from the zoo.
    name: as for `zoo.data.tokenizers.tokenizer`; None: the model's own.
    otherwise: for a model without one.
    what: the caller's name in messages.
  """
  if name is None:
    name = defaults(model).get("tokenizer", otherwise)
  if name is None:
    raise UserError(f"{what}: the model's folder has no tokenizer. Download its files, or name a tokenizer.")
  tokenizer = open_tokenizer(local_name(name))
  check_tokenizer(model, tokenizer, what)
  return tokenizer


def check_tokenizer(model: Any, tokenizer: Tokenizer, what: str, *, training: bool = False) -> None:
  """UserError if a model cannot have been trained with this tokenizer: ids would be out of range, or eos misread.

  Args:
    model: from the zoo; others are not checked.
    tokenizer: the tokenizer to check.
    what: the caller's name in messages.
    training: whether the model may be trained on another tokenizer than its own.
  """
  if not getattr(model, "spec", None):
    return
  sizes, name = sizes_of(model), tokenizer.name
  size = sizes.get("vocab_size")
  if not training and size is not None and tokenizer.vocab_size > size:
    raise UserError(f"{what}: tokenizer {name} has {tokenizer.vocab_size} tokens, the model has {size}. {_WAY_OUT}")
  end = _end(tokenizer)
  if sizes.get("read_at") == "eos":
    eos = sizes["vocab_size"] - 1 if sizes.get("eos") is None else sizes["eos"]
    if end != eos:
      raise UserError(f"{what}: tokenizer {name} ends a text by {end}, the model reads it at {eos}. {_WAY_OUT}")
  if sizes.get("read_at") == "largest":
    largest = max([*tokenizer.encode(PROBE), _begin(tokenizer) or 0])
    if end is None or largest >= end:
      raise UserError(
        f"{what}: tokenizer {name} ends a text by {end} and has {largest} before it; the model reads a text at its "
        f"largest token. {_WAY_OUT}"
      )
  if not training:
    _check_own(model, tokenizer, what)


_WAY_OUT = "Leave tokenizer out, or name the model's."


def _check_own(model: Any, tokenizer: Tokenizer, what: str) -> None:
  carried = of(model).get("tokenizer")
  if carried is None or carried == tokenizer.name or carried not in NAMED and not os.path.exists(carried):
    return
  try:
    other = open_tokenizer(carried)
  except UserError:  # Another one was named explicitly.
    return
  for kind, of_text in {"tokens": lambda one: one.encode(PROBE), "ends": _end, "beginnings": _begin}.items():
    actual, expected = of_text(tokenizer), of_text(other)
    if actual != expected and None not in (actual, expected):
      raise UserError(
        f"{what}: tokenizer {tokenizer.name} has other {kind} than the model's own, {carried}: {shown(actual, 40)}, "
        f"not {shown(expected, 40)}. {_WAY_OUT}"
      )


def _begin(tokenizer: Tokenizer) -> int | None:
  return tokenizer.bos if tokenizer.bos is not None else tokenizer.cls


def _end(tokenizer: Tokenizer) -> int | None:
  return tokenizer.eos if tokenizer.eos is not None else tokenizer.sep


def check_images(model: Any, records: Any, where: str) -> None:
  """UserError if the model does not take the images of `records`."""
  shape = getattr(model, "image_shape", None)
  if shape is None or not len(records):
    return
  try:
    image = records[0].get("image")
  except BadRecord:  # Others are checked when they are read.
    return
  if image is not None and np.shape(image) != shape:
    actual, expected = (" x ".join(map(str, size)) for size in (np.shape(image), shape))
    raise UserError(
      f"{where}: images are {actual}, the model takes {expected}. Leave image_size out, or set it to {shape[0]}."
    )


def _pipelines(option: str) -> list[str]:
  """The pipelines that take an option."""
  return [name for name in names("data") if option in inspect.signature(lookup("data", name)).parameters]
