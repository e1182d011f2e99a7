"""CLIP in the hub's layout: https://huggingface.co/openai/clip-vit-base-patch32."""

from zoo.convert.rules import reference
from zoo.convert.rules.layouts import CONV, FLAT, Rule, attention, embedding, linear, mlp, norm
from zoo.convert.rules.options import ACTIVATIONS, Key, Options, entries, named_labels
from zoo.errors import UserError

MODEL_TYPES = ("clip",)
HEADS = {None: ("CLIPModel",), "classify": ("CLIPForImageClassification",)}
IGNORED = (r".*\.position_ids",)

TEXT = (
  Key("vocab_size", "vocab_size", 49408),
  Key("max_position_embeddings", "max_length", 77),
  Key("hidden_size", "text_dim", 512),
  Key("num_hidden_layers", "text_depth", 12),
  Key("num_attention_heads", "text_heads", 8),
  Key("intermediate_size", "text_mlp_dim", 2048),
)
IMAGE = (
  Key("image_size", "image_size", 224),
  Key("patch_size", "patch_size", 32),
  Key("num_channels", "channels", 3),
  Key("hidden_size", "image_dim", 768),
  Key("num_hidden_layers", "image_depth", 12),
  Key("num_attention_heads", "image_heads", 12),
  Key("intermediate_size", "image_mlp_dim", 3072),
)
BOTH = (Key("hidden_act", "activation", "quick_gelu", ACTIVATIONS), Key("layer_norm_eps", "epsilon", 1e-5))


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  sizes = {"embed_dim": options.take("projection_dim", 512)}
  sizes |= {"head": head, "num_classes": options.num_labels() if head == "classify" else None}
  options.ignore("logit_scale_init_value", "tie_word_embeddings")  # There are no tied weights.
  text, image = (_tower(options, name) for name in ("text", "vision"))
  for section, keys in ((image, IMAGE), (text, TEXT)):
    sizes |= section.sizes(keys)
    towers = section.sizes(BOTH)
    for name, value in towers.items():
      if sizes.setdefault(name, value) != value and head is None:
        raise section.refusal(
          {key.ours: key.theirs for key in BOTH}[name], value, [f"that of the other tower, {sizes[name]!r}"]
        )
    section.ignore("dropout", "attention_dropout", "projection_dim", "tie_word_embeddings")
  sizes |= end_of_text(text)
  text.done()
  image.done()
  return sizes


def _tower(options, name):
  """A tower's config section; an older `*_config_dict` beside it takes precedence, completed with all defaults."""
  published = reference.of(f"clip_{name}_model")
  section, override = options.section(f"{name}_config", published), options.take(f"{name}_config_dict", None, dict)
  if override is not None and published is not None:
    defaults = {**published.fields, **override}
    section.entries |= {entry: value for entry, value in defaults.items() if entry not in section.ignored}
  return section


def config(sizes):
  """-> config.json"""
  for name in ("stem_dims", "logit_bias"):
    if sizes[name]:
      raise UserError(f"A CLIP with {name} {sizes[name]} is not one of the hub's. Build it without, or use zoo.save.")
  both, sizes = entries(BOTH, sizes), full(sizes, "image_")
  config = {"model_type": "clip", "vision_config": entries(IMAGE, sizes) | both}
  if sizes["num_classes"] is not None:
    config |= named_labels(sizes["num_classes"])
  if sizes["embed_dim"] is not None:
    config["projection_dim"] = sizes["embed_dim"]
  if sizes["text_dim"] is not None:
    config["text_config"] = entries(TEXT, full(sizes, "text_")) | both | end_entry(sizes)
  return config


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  rules = tower_rules("image", "vision_model.", sizes["image_depth"])
  if sizes["head"] == "classify":
    return rules + linear("head", "classifier")
  rules += [Rule("logit_scale", "logit_scale")]
  rules += tower_rules("text", "text_model.", sizes["text_depth"] or 0)
  rules += linear("image/projection", "visual_projection", bias=False)
  return rules + linear("text/projection", "text_projection", bias=False)


def tower_rules(tower, front, depth):
  """Rules of one tower, "text" or "image", whose names start with `front`."""
  rules = []
  for i in range(depth):
    ours, theirs = f"{tower}/stack/layer_{i}", f"{front}encoder.layers.{i}"
    to = [f"{theirs}.self_attn.{name}_proj" for name in ("q", "k", "v", "out")]
    rules += attention(f"{ours}/self_attention", *to)
    rules += mlp(f"{ours}/feed_forward", f"{theirs}.mlp.fc1", f"{theirs}.mlp.fc2")
    rules += norm(f"{ours}/attention_norm", f"{theirs}.layer_norm1")
    rules += norm(f"{ours}/mlp_norm", f"{theirs}.layer_norm2")
  rules += embedding(f"{tower}/positions", f"{front}embeddings.position_embedding")
  if tower == "text":
    rules += embedding("text/embed", f"{front}embeddings.token_embedding")
    return rules + norm("text/norm", f"{front}final_layer_norm")
  rules += [Rule("image/class_token/embedding", f"{front}embeddings.class_embedding", FLAT)]
  rules += [Rule("image/patches/kernel", f"{front}embeddings.patch_embedding.weight", CONV)]
  return rules + norm("image/pre_norm", f"{front}pre_layrnorm") + norm("image/norm", f"{front}post_layernorm")


def end_of_text(options):
  """The token to pool: `read_at` and `eos`."""
  eos = options.take("eos_token_id", 49407, int)
  # The published configs have 2, which is not the token: transformers interprets it as the largest id.
  return {"read_at": "largest", "eos": None} if eos == 2 else {"read_at": "eos", "eos": eos}


def end_entry(sizes):
  """Inverse of `end_of_text`: the config entry."""
  eos = sizes["vocab_size"] - 1 if sizes["eos"] is None else sizes["eos"]
  return {"eos_token_id": 2 if sizes["read_at"] == "largest" else eos}


def own_names(keys, tower):
  """Renames keys for the table of a standalone tower: `text_dim` becomes `dim`."""
  renamed = {f"{tower}dim": "dim", f"{tower}depth": "depth", f"{tower}heads": "num_heads", f"{tower}mlp_dim": "mlp_dim"}
  return tuple(key._replace(ours=renamed.get(key.ours, key.ours)) for key in keys)


def full(sizes, *towers):
  """The sizes with every mlp_dim filled in."""
  return sizes | {f"{t}mlp_dim": sizes[f"{t}mlp_dim"] or 4 * sizes[f"{t}dim"] for t in towers or ("",)}
