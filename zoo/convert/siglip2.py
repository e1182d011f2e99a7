"""SigLIP 2 NaFlex in the hub's layout: https://huggingface.co/google/siglip2-base-patch16-naflex."""

import math

from zoo.convert import siglip
from zoo.convert.rules.layouts import LINEAR
from zoo.convert.rules.options import Options

MODEL_TYPES = ("siglip2",)
HEADS = {None: ("Siglip2Model",), "classify": ("Siglip2ForImageClassification",)}
IGNORED = siglip.IGNORED


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  image = options.section("vision_config")
  side = grid_side(image)
  # The rest is SigLIP's, which has the side in pixels instead of patches.
  entries = {name: value for name, value in image.entries.items() if name not in ("num_patches", "image_size")}
  sizes = siglip.sizes(options.but(vision_config=entries), head, tensors)
  return {**sizes, "image_size": side * sizes["patch_size"]}


def config(sizes):
  """-> config.json"""
  config = siglip.config(sizes)
  image = config["vision_config"]
  image["num_patches"] = (image.pop("image_size") // image["patch_size"]) ** 2
  return {**config, "model_type": "siglip2"}


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  return as_rows(siglip.rules(sizes))


def grid_side(image: Options):
  """Side of the square grid of position embeddings, in patches."""
  patches = image.take("num_patches", 256)
  side = math.isqrt(patches) if patches > 0 else 0
  if side**2 != patches or not side:
    raise image.refusal("num_patches", patches, ["a square, as 256"])
  return side


def as_rows(rules):
  """SigLIP's rules for flattened patches: a matrix in place of a convolution."""
  return [rule._replace(layout=LINEAR) if rule.ours == "image/patches/kernel" else rule for rule in rules]
