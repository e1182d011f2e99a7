"""MAE's encoder in the hub's layout: https://huggingface.co/facebook/vit-mae-base. Its tensors are named as ViT's."""

from zoo.convert import vit
from zoo.convert.rules.layouts import HEADS_BIAS
from zoo.convert.rules.options import Key, Options, entries

MODEL_TYPES = ("vit_mae",)
HEADS = {None: ("ViTMAEModel", "ViTMAEForPreTraining")}  # Only the encoder of the second is read.
PREFIX = "vit."
IGNORED = (r"decoder\..*",)  # The decoder that reconstructs masked patches, in checkpoints from pretraining.

KEYS = (
  *vit.KEYS,
  Key("mask_ratio", "mask_ratio", 0.75),
  Key("qkv_bias", "qkv_bias", True),
)


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  # Entries of the decoder and its loss; a training-only rate.
  options.ignore("decoder_hidden_size", "decoder_num_hidden_layers", "decoder_num_attention_heads")
  options.ignore("decoder_intermediate_size", "norm_pix_loss", "attention_probs_dropout_prob")
  return options.sizes(KEYS)


def config(sizes):
  """-> config.json"""
  sizes = {**sizes, "mlp_dim": sizes["mlp_dim"] or 4 * sizes["dim"]}
  return {"model_type": "vit_mae", "attention_probs_dropout_prob": sizes["dropout"], **entries(KEYS, sizes)}


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  rules = vit.rules({**sizes, "num_classes": None, "pooler": False})
  return [rule for rule in rules if sizes["qkv_bias"] or rule.layout is not HEADS_BIAS]
