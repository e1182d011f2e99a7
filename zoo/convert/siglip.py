"""SigLIP in the hub's layout: https://huggingface.co/google/siglip-base-patch16-224; also fixed-resolution SigLIP 2."""

from zoo.convert.rules import layouts, reference
from zoo.convert.rules.layouts import Rule, attention, embedding, linear, mlp, norm
from zoo.convert.rules.options import ACTIVATIONS, Key, Options, entries, named_labels

MODEL_TYPES = ("siglip",)
HEADS = {None: ("SiglipModel",), "classify": ("SiglipForImageClassification",)}
IGNORED = (r".*\.position_ids",)

TEXT = (
  Key("vocab_size", "vocab_size", 32000),
  Key("max_position_embeddings", "max_length", 64),
  Key("hidden_size", "text_dim", 768),
  Key("num_hidden_layers", "text_depth", 12),
  Key("num_attention_heads", "text_heads", 12),
  Key("intermediate_size", "text_mlp_dim", 3072),
)
IMAGE = (
  Key("image_size", "image_size", 224),
  Key("patch_size", "patch_size", 16),
  Key("num_channels", "channels", 3),
  Key("hidden_size", "image_dim", 768),
  Key("num_hidden_layers", "image_depth", 12),
  Key("num_attention_heads", "image_heads", 12),
  Key("intermediate_size", "image_mlp_dim", 3072),
)
BOTH = (Key("hidden_act", "activation", "gelu_pytorch_tanh", ACTIVATIONS), Key("layer_norm_eps", "epsilon", 1e-6))


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  kind = options.take("model_type", "siglip")
  text, image = (options.section(f"{name}_config", reference.of(f"{kind}_{name}_model")) for name in ("text", "vision"))
  sizes = {"head": head, "num_classes": options.num_labels() if head == "classify" else None}
  sizes |= image.sizes(IMAGE + BOTH) | {"pool": image.take("vision_use_head", True)}
  sizes |= text.sizes(TEXT)
  if head is None:
    image.must_be("vision_use_head", True)
    for key in BOTH:
      if (value := text.sizes([key])[key.ours]) != sizes[key.ours]:
        raise text.refusal(key.theirs, value, [f"that of the other tower, {sizes[key.ours]!r}"])
    projected = text.take("projection_size", sizes["text_dim"])
    if projected != sizes["image_dim"]:
      raise text.refusal("projection_size", projected, [f"the width of the other tower, {sizes['image_dim']}"])
  text.ignore("attention_dropout", "projection_size", *(key.theirs for key in BOTH))
  image.ignore("attention_dropout")
  text.done()
  image.done()
  return sizes


def config(sizes):
  """-> config.json"""
  both = entries(BOTH, sizes)
  image = sizes | {"image_mlp_dim": sizes["image_mlp_dim"] or 4 * sizes["image_dim"]}
  config = {
    "model_type": "siglip",
    "vision_config": entries(IMAGE, image) | both | {"vision_use_head": sizes["pool"]},
  }
  if sizes["num_classes"] is not None:
    config |= named_labels(sizes["num_classes"])
  if sizes["text_dim"] is not None:
    text = sizes | {"text_mlp_dim": sizes["text_mlp_dim"] or 4 * sizes["text_dim"]}
    config["text_config"] = entries(TEXT, text) | both | {"projection_size": sizes["image_dim"]}
  return config


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  rules = image_rules("vision_model.", sizes["image_depth"])
  rules += pool_rules("vision_model.", sizes["image_dim"]) if sizes["pool"] else []
  if sizes["head"] == "classify":
    return rules + linear("head", "classifier")
  rules += text_rules("text_model.", sizes["text_depth"])
  return rules + [Rule(name, name, layouts.SCALAR) for name in ("logit_scale", "logit_bias")]


def image_rules(front, depth):
  """Rules of the image tower without its pooling head; names start with `front`."""
  rules = _encoder("image", front, depth) + norm("image/norm", f"{front}post_layernorm")
  rules += [Rule("image/patches/kernel", f"{front}embeddings.patch_embedding.weight", layouts.CONV)]
  rules += [Rule("image/patches/bias", f"{front}embeddings.patch_embedding.bias")]
  return rules + embedding("image/positions", f"{front}embeddings.position_embedding")


def text_rules(front, depth):
  """Rules of the text tower; names start with `front`."""
  rules = _encoder("text", front, depth) + norm("text/norm", f"{front}final_layer_norm")
  rules += embedding("text/embed", f"{front}embeddings.token_embedding")
  rules += embedding("text/positions", f"{front}embeddings.position_embedding")
  return rules + linear("text/projection", f"{front}head")


def _encoder(tower, front, depth):
  rules = []
  for i in range(depth):
    ours, theirs = f"{tower}/stack/layer_{i}", f"{front}encoder.layers.{i}"
    rules += attention(f"{ours}/self_attention", *(f"{theirs}.self_attn.{to}_proj" for to in ("q", "k", "v", "out")))
    rules += mlp(f"{ours}/feed_forward", f"{theirs}.mlp.fc1", f"{theirs}.mlp.fc2")
    rules += norm(f"{ours}/attention_norm", f"{theirs}.layer_norm1")
    rules += norm(f"{ours}/mlp_norm", f"{theirs}.layer_norm2")
  return rules


def pool_rules(front, dim):
  """Rules of the pooling head: torch's MultiheadAttention fuses query, key and value in one matrix."""
  ours, theirs = "image/pool", f"{front}head"
  rules = [Rule(f"{ours}/embedding", f"{theirs}.probe", layouts.ONE_BEFORE)]
  for part, name in enumerate(("query", "key", "value")):
    for end, their_end, layout in (("kernel", "weight", layouts.HEADS), ("bias", "bias", layouts.HEADS_BIAS)):
      at, fused = f"{ours}/attention/{name}/{end}", f"{theirs}.attention.in_proj_{their_end}"
      rules += [Rule(at, fused, layout, stretch=(0, part * dim, 3 * dim))]
  rules += layouts.heads_out(f"{ours}/attention/out", f"{theirs}.attention.out_proj")
  rules += norm(f"{ours}/norm", f"{theirs}.layernorm")
  return rules + mlp(f"{ours}/mlp", f"{theirs}.mlp.fc1", f"{theirs}.mlp.fc2")
