"""ViT in the hub's layout: https://huggingface.co/google/vit-base-patch16-224."""

from zoo.convert.rules.layouts import CONV, ONE_BEFORE, Rule, attention, linear, mlp, norm
from zoo.convert.rules.options import ACTIVATIONS, Key, Options, entries, named_labels

MODEL_TYPES = ("vit",)
HEADS = {"classify": ("ViTForImageClassification",), None: ("ViTModel",)}
PREFIX = "vit."

KEYS = (
  Key("image_size", "image_size", 224),
  Key("patch_size", "patch_size", 16),
  Key("num_channels", "channels", 3),
  Key("hidden_size", "dim", 768),
  Key("num_hidden_layers", "depth", 12),
  Key("num_attention_heads", "num_heads", 12),
  Key("intermediate_size", "mlp_dim", 3072),
  Key("hidden_act", "activation", "gelu", ACTIVATIONS),
  Key("layer_norm_eps", "epsilon", 1e-12),
  Key("hidden_dropout_prob", "dropout", 0.0),
)


def head_of(sizes):
  """The head: "classify" for a ViT with classes, else None."""
  return None if sizes["num_classes"] is None else "classify"


def with_head(sizes, head):
  """Sizes of the model with or without classes."""
  return {**sizes, "num_classes": None if head is None else sizes["num_classes"] or 2, "pooler": head is None}


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  sizes = options.sizes(KEYS)
  sizes["num_classes"] = options.num_labels() if head == "classify" else None
  # Headless checkpoints may or may not have it.
  sizes["pooler"] = head is None and any(name.endswith("pooler.dense.weight") for name in tensors)
  options.must_be("qkv_bias", True)
  options.must_be("pooler_act", "tanh")
  options.ignore("attention_probs_dropout_prob", "encoder_stride", "pooler_output_size")
  return sizes


def config(sizes):
  """-> config.json"""
  sizes = {**sizes, "mlp_dim": sizes["mlp_dim"] or 4 * sizes["dim"]}
  labels = {} if sizes["num_classes"] is None else named_labels(sizes["num_classes"])
  extra = {"attention_probs_dropout_prob": sizes["dropout"], **labels}
  return {"model_type": "vit", **entries(KEYS, sizes), **extra}


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  head, rules = head_of(sizes), []
  p = PREFIX if head else ""
  for i in range(sizes["depth"]):
    ours, theirs = f"stack/layer_{i}", f"{p}encoder.layer.{i}"
    to = [f"{theirs}.attention.attention.{name}" for name in ("query", "key", "value")]
    rules += attention(f"{ours}/self_attention", *to, f"{theirs}.attention.output.dense")
    rules += mlp(f"{ours}/feed_forward", f"{theirs}.intermediate.dense", f"{theirs}.output.dense")
    rules += norm(f"{ours}/attention_norm", f"{theirs}.layernorm_before")
    rules += norm(f"{ours}/mlp_norm", f"{theirs}.layernorm_after")
  rules += [Rule("class_token/embedding", f"{p}embeddings.cls_token", ONE_BEFORE)]
  rules += [Rule("positions/embedding", f"{p}embeddings.position_embeddings", ONE_BEFORE)]
  rules += [Rule("patches/kernel", f"{p}embeddings.patch_embeddings.projection.weight", CONV)]
  rules += [Rule("patches/bias", f"{p}embeddings.patch_embeddings.projection.bias")]
  rules += norm("norm", f"{p}layernorm")
  rules += linear("pooler", f"{p}pooler.dense") if sizes["pooler"] else []
  return rules + (linear("head", "classifier") if head else [])
