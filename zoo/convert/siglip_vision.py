"""SigLIP's standalone image tower in the hub's layout: https://huggingface.co/docs/transformers/model_doc/siglip."""

from zoo.convert import clip, siglip
from zoo.convert.rules.options import Options, entries

MODEL_TYPES = ("siglip_vision_model",)
HEADS = {None: ("SiglipVisionModel",)}
PREFIX = "vision_model."
IGNORED = siglip.IGNORED
KEYS = (*clip.own_names(siglip.IMAGE, "image_"), *siglip.BOTH)


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  # Dropout acts only in training and is 0 in all published configs.
  options.ignore("attention_dropout")
  return options.sizes(KEYS) | {"pool": options.take("vision_use_head", True)}


def config(sizes):
  """-> config.json"""
  extra = {"vision_use_head": sizes["pool"]}
  return {"model_type": "siglip_vision_model", **entries(KEYS, clip.full(sizes)), **extra}


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  return siglip.image_rules("", sizes["depth"]) + (siglip.pool_rules("", sizes["dim"]) if sizes["pool"] else [])
