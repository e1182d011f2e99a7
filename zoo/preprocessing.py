"""Preprocessing stored with a model: how images, sounds and texts become its inputs.

A model's `preprocessing` is plain data. Every entry may be left out:

    {
      "image": {
        "scale": 1/255, "mean": [.., .., ..], "std": [.., .., ..],    pixels: (scale * uint8 - mean) / std
        "resize": 224 (shorter edge) or [height, width] or None, "resample": "bicubic", "crop": [height, width] or None,
        "crop_rounds": True                                           the centre is rounded as in torchvision
        "patch_size": 16, "patches": 256                              of models for images of any shape
      },
      "sound": fields of `zoo.hub.log_mel.LogMel`,
      "text": {"mask": False},                                        the model was trained without padding masks
      "tokenizer": "clip",                                            a name or a path, as `zoo.load_tokenizer` takes it
      "classes": ["cat", "dog"],                                      names of its classes, in the order of its logits
      "sentence": {"pooling": ["mean"], "unit": True, ...}            a sentence encoder: `zoo.hub.sentence_carried`
    }

Without "image" pixels are the zoo's own, uint8 / 127.5 - 1. With {"image": {"unknown": reason}}, for a published model
whose files do not define it, uint8 images are refused. `scale` defaults to 1/255, and None means 1; without
`mean` and `std` nothing is shifted. Images travel to the devices as uint8 and are normalised there.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.config.schema import resolve
from zoo.errors import UserError, did_you_mean, shown

KEYS = ("image", "sound", "text", "tokenizer", "classes", "sentence")
IMAGE = ("scale", "mean", "std", "resize", "resample", "crop", "crop_rounds", "patch_size", "patches", "unknown")
RESAMPLES = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # By Pillow's numbers.


def check(entries: Mapping[str, Any]) -> dict[str, Any]:
  """Validates `entries` -> a plain dict. UserError for an unknown entry or a wrong type."""
  entries = resolve(entries, "model.preprocessing")
  if not isinstance(entries, Mapping):
    raise UserError(f"model.preprocessing is {shown(entries)}. It must be a mapping with any of: {', '.join(KEYS)}.")
  _known(entries, KEYS, "model.preprocessing")
  for name in ("image", "sound", "text", "sentence"):
    if not isinstance(entries.get(name, {}), Mapping):
      raise UserError(f"model.preprocessing.{name} is {shown(entries[name])}. It must be a mapping.")
  if not isinstance(entries.get("tokenizer", ""), str):
    raise UserError(
      f"model.preprocessing.tokenizer is {shown(entries['tokenizer'])}. It must be a str: a name or a path."
    )
  classes = entries.get("classes", [])
  if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
    raise UserError(f"model.preprocessing.classes is {shown(classes)}. It must be a list of names.")
  text = entries.get("text", {})
  _known(text, ("mask",), "model.preprocessing.text")
  if not isinstance(text.get("mask", True), bool):
    raise UserError(f"model.preprocessing.text.mask is {shown(text['mask'])}. It must be a bool.")
  _check_image(entries.get("image", {}))
  return dict(entries)


def _known(entries: Mapping[str, Any], allowed: tuple[str, ...], where: str) -> None:
  for name in entries:
    if name not in allowed:
      raise UserError(f"{where} has no {shown(name)}.{did_you_mean(str(name), allowed)} It has: {', '.join(allowed)}.")


def _check_image(image: Mapping[str, Any]) -> None:
  _known(image, IMAGE, "model.preprocessing.image")
  number = lambda x: isinstance(x, int | float) and not isinstance(x, bool) and bool(np.isfinite(x))
  count = lambda x: type(x) is int and 0 < x < 2**15
  several = lambda x: isinstance(x, list | tuple) and len(x) > 0 and all(map(number, x))
  side = lambda x: isinstance(x, list | tuple) and len(x) == 2 and all(map(count, x))
  kinds = {
    "scale": ("a number or None", lambda x: x is None or number(x) and x != 0),
    "mean": ("a number, one per channel, or None", lambda x: x is None or number(x) or several(x)),
    "std": (
      "a number, one per channel, or None",
      lambda x: x is None or (number(x) or several(x)) and np.all(x),
    ),
    "resize": (
      "an int (shorter edge), [height, width] or None",
      lambda x: x is None or count(x) or side(x),
    ),
    "crop": ("[height, width] or None", lambda x: x is None or side(x)),
    "crop_rounds": ("a bool", lambda x: isinstance(x, bool)),
    "resample": (f"one of {', '.join(RESAMPLES)}", lambda x: x in RESAMPLES),
    "patch_size": ("an int, in pixels", count),
    "patches": ("a number", count),
    "unknown": ("a reason", lambda x: isinstance(x, str)),
  }
  for name, value in image.items():
    kind, fits = kinds[name]
    if not fits(value):
      raise UserError(f"model.preprocessing.image.{name} is {shown(value)}. It must be {kind}.")
  if "resize" in image and ("crop" not in image or "resample" not in image):
    raise UserError("model.preprocessing.image has resize: it needs crop (which may be None) and resample too.")


def of(model: Any) -> dict[str, Any]:
  """The preprocessing of `model`; {} if it has none."""
  return getattr(model, "preprocessing", {})


def as_float(image: Any, model: Any = None) -> Any:
  """Normalises uint8 images (0 to 255) for `model`; floats are returned unchanged. uint8 is a quarter of the transfer.

  Args:
    image: uint8 or float [batch, height, width, channels], or a dict with "patches" [batch, n, pixels] and "valid".
    model: its preprocessing is applied; x / 127.5 - 1 if it has none for images, or is None.

  Raises:
    UserError: uint8 for a published model whose files do not define the normalisation.
  """
  if isinstance(image, Mapping):
    if image["patches"].dtype != jnp.uint8:
      return image
    patches = image["patches"]
    colours = as_float(patches.reshape(*patches.shape[:-1], -1, 3), model).reshape(patches.shape)
    return {**image, "patches": jnp.where(image["valid"][..., None], colours, 0)}  # Padding stays 0.
  if image.dtype != jnp.uint8:
    return image
  entries = of(model).get("image")
  return image.astype(jnp.float32) / 127.5 - 1 if entries is None else normalize(image, entries)


def normalize(image: jax.Array, entries: Mapping[str, Any]) -> jax.Array:
  """Normalises pixels: (scale * image - mean) / std, of uint8 or float [..., channels] from 0 to 255 -> float32."""
  if "unknown" in entries:
    raise UserError(entries["unknown"])
  x, scale = image.astype(jnp.float32), entries.get("scale", 1 / 255)
  x = x if scale is None else x * np.float32(scale)
  mean, std = (_colours(entries.get(name), name, x) for name in ("mean", "std"))
  x = x if mean is None else x - mean
  return x if std is None else x / std


def from_unit(image: jax.Array, entries: Mapping[str, Any]) -> jax.Array:
  """`normalize` for floats in [-1, 1], as augmentation returns them."""
  return normalize((image + 1) * 127.5, entries)


def text_options(model: Any, options: dict[str, Any]) -> dict[str, Any]:
  """`options` of a call with tokens, without `valid` if the model was trained without padding masks."""
  sees_padding = of(model).get("text", {}).get("mask") is False
  return {name: x for name, x in options.items() if name != "valid" or not sees_padding}


def _colours(value: Any, name: str, image: jax.Array) -> np.ndarray | None:
  if value is None:
    return None
  colours = np.atleast_1d(np.asarray(value, np.float32))
  if len(colours) not in (1, image.shape[-1]):
    raise UserError(
      f"model.preprocessing.image.{name} has {len(colours)} numbers, images have {image.shape[-1]} channels."
    )
  return colours.reshape((1,) * (image.ndim - 1) + (-1,))
