"""DINOv2 in the hub's layout: https://huggingface.co/facebook/dinov2-base, and with registers."""

from zoo.convert.rules import layouts
from zoo.convert.rules.layouts import Rule, attention, linear, mlp, norm
from zoo.convert.rules.options import ACTIVATIONS, Key, Options, entries, named_labels
from zoo.errors import UserError

MODEL_TYPES = ("dinov2", "dinov2_with_registers")
HEADS = {
  None: ("Dinov2Model", "Dinov2WithRegistersModel"),
  "classify": ("Dinov2ForImageClassification", "Dinov2WithRegistersForImageClassification"),
}
PREFIX = ("dinov2.", "dinov2_with_registers.")

KEYS = (
  Key("image_size", "image_size", 224),
  Key("num_channels", "channels", 3),
  Key("hidden_size", "dim", 768),
  Key("num_hidden_layers", "depth", 12),
  Key("num_attention_heads", "num_heads", 12),
  Key("use_swiglu_ffn", "gated", False),
  Key("qkv_bias", "qkv_bias", True),
  Key("layerscale_value", "layer_scale", 1.0),
  Key("hidden_act", "activation", "gelu", ACTIVATIONS),
  Key("layer_norm_eps", "epsilon", 1e-6),
  Key("hidden_dropout_prob", "dropout", 0.0),
)


def head_of(sizes):
  """The head: "classify" for a DINOv2 with classes, else None."""
  return None if sizes["num_classes"] is None else "classify"


def with_head(sizes, head):
  """Sizes of the model with or without classes."""
  return {**sizes, "num_classes": None if head is None else sizes["num_classes"] or 2}


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  registers = options.entries.get("model_type") == "dinov2_with_registers"
  sizes = options.sizes(KEYS)
  sizes["patch_size"] = options.take("patch_size", 16 if registers else 14)
  sizes["mlp_dim"] = _mlp_dim(sizes["dim"], options.take("mlp_ratio", 4), sizes["gated"])
  sizes["registers"] = options.take("num_register_tokens", 4) if registers else None
  sizes["mask_token"] = registers or options.take("use_mask_token", True)
  sizes["num_classes"] = options.num_labels() if head == "classify" else None
  # Training-only rates; layers for detectors.
  options.ignore("attention_probs_dropout_prob", "drop_path_rate", "apply_layernorm", "reshape_hidden_states")
  options.ignore("out_features", "out_indices", "stage_names")
  return sizes


def _mlp_dim(dim, ratio, gated):
  """MLP width: `ratio * dim`, or two thirds of that rounded up to a multiple of 8 if gated."""
  return (int(dim * ratio * 2 / 3) + 7) // 8 * 8 if gated else dim * ratio


def config(sizes):
  """-> config.json"""
  dim, gated = sizes["dim"], sizes["gated"]
  mlp_dim = sizes["mlp_dim"] or 4 * dim
  ratio = next((ratio for ratio in range(1, 65) if _mlp_dim(dim, ratio, gated) == mlp_dim), None)
  if ratio is None:
    raise UserError(f"A DINOv2 of dim {dim} with mlp_dim {mlp_dim} is not one of the hub's: theirs is a ratio of dim.")
  registers, head = sizes["registers"] is not None, head_of(sizes)
  if registers and not sizes["mask_token"]:
    raise UserError("A DINOv2 with registers has a mask token on the hub. Build it with mask_token=True.")
  extra = {"num_register_tokens": sizes["registers"]} if registers else {"use_mask_token": sizes["mask_token"]}
  return {
    "model_type": MODEL_TYPES[registers],
    "architectures": [HEADS[head][registers]],
    "patch_size": sizes["patch_size"],
    "mlp_ratio": ratio,
    **entries(KEYS, sizes),
    **extra,
    **(named_labels(sizes["num_classes"]) if head else {}),
  }


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  head, registers = head_of(sizes), sizes["registers"] is not None
  p, rules = PREFIX[registers] if head else "", []
  for i in range(sizes["depth"]):
    ours, theirs = f"stack/layer_{i}", f"{p}encoder.layer.{i}"
    to = [f"{theirs}.attention.attention.{name}" for name in ("query", "key", "value")]
    attention_rules = attention(f"{ours}/self_attention", *to, f"{theirs}.attention.output.dense")
    rules += [rule for rule in attention_rules if sizes["qkv_bias"] or rule.layout is not layouts.HEADS_BIAS]
    rules += _gated(f"{ours}/feed_forward", f"{theirs}.mlp", sizes) if sizes["gated"] else mlp(
      f"{ours}/feed_forward", f"{theirs}.mlp.fc1", f"{theirs}.mlp.fc2"
    )  # fmt: skip
    rules += norm(f"{ours}/attention_norm", f"{theirs}.norm1") + norm(f"{ours}/mlp_norm", f"{theirs}.norm2")
    rules += [Rule(f"{ours}/attention_after/scale", f"{theirs}.layer_scale1.lambda1")]
    rules += [Rule(f"{ours}/mlp_after/scale", f"{theirs}.layer_scale2.lambda1")]
  rules += [Rule("class_token/embedding", f"{p}embeddings.cls_token", layouts.ONE_BEFORE)]
  rules += [Rule("mask_token", f"{p}embeddings.mask_token")] if sizes["mask_token"] else []
  rules += [Rule("registers", f"{p}embeddings.register_tokens", layouts.ONE_BEFORE)] if registers else []
  rules += [Rule("positions/embedding", f"{p}embeddings.position_embeddings", layouts.ONE_BEFORE)]
  rules += [Rule("patches/kernel", f"{p}embeddings.patch_embeddings.projection.weight", layouts.CONV)]
  rules += [Rule("patches/bias", f"{p}embeddings.patch_embeddings.projection.bias")]
  return rules + norm("norm", f"{p}layernorm") + (linear("head", "classifier") if head else [])


def _gated(ours, theirs, sizes):
  """Rules of a gated MLP with gate and up fused in one matrix."""
  width = sizes["mlp_dim"] or 4 * sizes["dim"]
  rules = linear(f"{ours}/down", f"{theirs}.weights_out")
  for part, name in enumerate(("gate", "up")):
    slice_of = (0, part * width, 2 * width)
    rules += [Rule(f"{ours}/{name}/kernel", f"{theirs}.weights_in.weight", layouts.LINEAR, stretch=slice_of)]
    rules += [Rule(f"{ours}/{name}/bias", f"{theirs}.weights_in.bias", stretch=slice_of)]
  return rules
