"""SigLIP's standalone text tower in the hub's layout: https://huggingface.co/docs/transformers/model_doc/siglip.

SigLIP 2's is the same model under another name.
"""

from zoo.convert import clip, siglip
from zoo.convert.rules.options import Options, entries

MODEL_TYPES = ("siglip_text_model", "siglip2_text_model")
HEADS = {None: ("SiglipTextModel", "Siglip2TextModel")}
PREFIX = "text_model."
IGNORED = siglip.IGNORED
KEYS = (*clip.own_names(siglip.TEXT, "text_"), *siglip.BOTH)


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  # Dropout acts only in training and is 0 in all published configs.
  options.ignore("attention_dropout")
  return options.sizes(KEYS) | {"embed_dim": options.take("projection_size", None, int)}


def config(sizes):
  """-> config.json"""
  extra = {"projection_size": sizes["embed_dim"] or sizes["dim"]}
  return {"model_type": "siglip_text_model", **entries(KEYS, clip.full(sizes)), **extra}


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  return siglip.text_rules("", sizes["depth"])
