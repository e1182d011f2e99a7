"""SigLIP 2 NaFlex's standalone image tower in the hub's layout: https://huggingface.co/docs/transformers/model_doc/siglip2."""

from zoo.convert import siglip2, siglip_vision
from zoo.convert.rules.options import Options

MODEL_TYPES = ("siglip2_vision_model",)
HEADS = {None: ("Siglip2VisionModel",)}
PREFIX = siglip_vision.PREFIX
IGNORED = siglip_vision.IGNORED


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  side = siglip2.grid_side(options)
  # The rest is SigLIP's, which has the side in pixels instead of patches.
  sizes = siglip_vision.sizes(options, head, tensors)
  return {**sizes, "image_size": side * sizes["patch_size"]}


def config(sizes):
  """-> config.json"""
  config = siglip_vision.config(sizes)
  config["num_patches"] = (config.pop("image_size") // config["patch_size"]) ** 2
  return {**config, "model_type": "siglip2_vision_model"}


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  return siglip2.as_rows(siglip_vision.rules(sizes))
