"""SigLIP in open_clip's layout: a text tower beside an image tower of timm, https://huggingface.co/timm/ViT-B-16-SigLIP.

A conversion table like those of zoo/convert, for a second layout of the family `siglip`, read-only.
"""

import re
from collections.abc import Mapping
from typing import Any

from zoo.convert.rules import layouts
from zoo.convert.rules.layouts import Rule, embedding, linear, mlp, norm
from zoo.convert.rules.options import Options
from zoo.errors import UserError
from zoo.hub import open_clip
from zoo.hub.files import Tensors

HEADS, RENAMED = {None: ("CustomTextCLIP",)}, open_clip.RENAMED
TRUNK, POOL = "visual.trunk", "visual.trunk.attn_pool"
# timm's names of the image towers. Widths and depths follow from shapes of arrays.
TOWER = re.compile(r"vit_(base|large|so400m|giantopt)_patch\d+_siglip_\d+")
NUM_HEADS = {"base": 12, "large": 16, "so400m": 16, "giantopt": 16}
# Towers with timm's approximate gelu; that of the others is exact.
TANH = re.compile(r"vit_(base_patch32|large_patch16_siglip_512|so400m_patch16|giantopt_patch16).*")
GELUS = {"none": "gelu", "tanh": "gelu_tanh"}
# Required entries that differ from defaults.
IMAGE = {"timm_pool": "map", "timm_proj": "none"}
TEXT = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
# Other entries of a text tower. For an image tower open_clip reads only timm's name.
TEXT_REST = {name: values for name, values in open_clip.TEXT.items() if name not in {*TEXT, "act_kwargs"}}
IMAGE_REST = (*open_clip.IMAGE, *open_clip.IMAGE_REST.split(), "layers", "width", "head_width", "mlp_ratio")


def timm_tower(config: Mapping[str, Any]) -> re.Match | None:
  """The name of the image tower in a parsed open_clip_config.json, if it is a SigLIP's."""
  model = config.get("model_cfg")
  vision = model.get("vision_cfg") if isinstance(model, dict) else None
  name = vision.get("timm_model_name") if isinstance(vision, dict) else None
  return TOWER.fullmatch(name) if isinstance(name, str) else None


def sizes(options: Options, tensors: Tensors) -> dict[str, Any]:
  """The entries of an open_clip_config.json and the shapes of tensors -> arguments of `zoo.build("siglip")`.

  Raises:
    UserError: an unsupported pool, projection or text tower, towers with different gelus, or no image tower.
  """
  options.ignore("preprocess_cfg")
  model = options.section("model_cfg")
  model.must_be("multimodal_cfg", None)
  model.must_be("quick_gelu", False)
  image, text = model.section("vision_cfg"), model.section("text_cfg")
  for section, needs in ((image, IMAGE), (text, TEXT)):
    for name, value in needs.items():
      if section.take(name) != value:
        raise section.refusal(name, section.entries.get(name), [value])
  image.ignore(*IMAGE_REST, "patch_size", "norm_kwargs")
  open_clip.only(text, TEXT_REST, f"{open_clip.TEXT_REST} eos_id")
  if open_clip.epsilon(text) != 1e-6:
    raise text.refusal("norm_kwargs", text.entries.get("norm_kwargs"), [{"eps": 1e-6}])
  if not isinstance(model.take("init_logit_bias", None, (int, float)), int | float):
    raise model.refusal("init_logit_bias", None, ["a number: the loss of a SigLIP has a bias"])
  tower = timm_tower(options.entries)
  assert tower is not None
  sizes = {
    **_image(options.where, tensors),
    "image_heads": NUM_HEADS[tower[1]],
    "image_size": open_clip.side(image, "image_size", 224),
    **open_clip.tower("text", text, 512),
    "text_heads": open_clip.count(text, "heads", 8),
    "max_length": open_clip.count(text, "context_length", 77),
    "vocab_size": open_clip.count(text, "vocab_size", 49408),
    "activation": _activation(options.where, text, tower[0]),
    "epsilon": 1e-6,
  }
  if open_clip.count(model, "embed_dim") != sizes["image_dim"]:
    raise model.refusal("embed_dim", model.entries["embed_dim"], [f"that of the image tower, {sizes['image_dim']}"])
  model.ignore("custom_text", "init_logit_scale", "nonscalar_logit_scale", "output_dict", "cast_dtype")
  for section in (image, text, model, options):
    section.done()
  return sizes


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  rules = [Rule(name, name) for name in ("logit_scale", "logit_bias")]
  rules += open_clip.layer_rules("text", "", sizes["text_depth"], sizes["text_dim"]) + norm("text/norm", "ln_final")
  rules += embedding("text/embed", "token_embedding") + linear("text/projection", "text_projection")
  rules += [Rule("image/positions/embedding", f"{TRUNK}.pos_embed", layouts.ONE_BEFORE)]
  rules += [Rule("image/patches/kernel", f"{TRUNK}.patch_embed.proj.weight", layouts.CONV)]
  rules += [Rule("image/patches/bias", f"{TRUNK}.patch_embed.proj.bias")] + norm("image/norm", f"{TRUNK}.norm")
  dim = sizes["image_dim"]
  for i in range(sizes["image_depth"]):
    ours, theirs = f"image/stack/layer_{i}", f"{TRUNK}.blocks.{i}"
    rules += open_clip.packed(f"{ours}/self_attention", f"{theirs}.attn.qkv.{{}}", ("query", "key", "value"), dim)
    rules += layouts.heads_out(f"{ours}/self_attention/out", f"{theirs}.attn.proj")
    rules += mlp(f"{ours}/feed_forward", f"{theirs}.mlp.fc1", f"{theirs}.mlp.fc2")
    rules += norm(f"{ours}/attention_norm", f"{theirs}.norm1") + norm(f"{ours}/mlp_norm", f"{theirs}.norm2")
  rules += [Rule("image/pool/embedding", f"{POOL}.latent", layouts.ONE_BEFORE)]
  rules += layouts.heads("image/pool/attention/query", f"{POOL}.q")
  rules += open_clip.packed("image/pool/attention", f"{POOL}.kv.{{}}", ("key", "value"), dim)
  rules += layouts.heads_out("image/pool/attention/out", f"{POOL}.proj") + norm("image/pool/norm", f"{POOL}.norm")
  return rules + mlp("image/pool/mlp", f"{POOL}.mlp.fc1", f"{POOL}.mlp.fc2")


def _image(where: str, tensors: Tensors) -> dict[str, int]:
  """Width, depth, patches and layers of the image tower, from the shapes of its arrays."""
  shapes = {name.removeprefix("module."): shape for name, shape in tensors.shapes.items()}
  patches, up = shapes.get(f"{TRUNK}.patch_embed.proj.weight", ()), shapes.get(f"{TRUNK}.blocks.0.mlp.fc1.weight", ())
  if len(patches) != 4 or len(up) != 2:
    raise UserError(f"{where} names an image tower of timm, but the weights have no {TRUNK}. Download them again.")
  depth = len({name.split(".")[3] for name in shapes if name.startswith(f"{TRUNK}.blocks.")})
  return {"image_dim": patches[0], "image_depth": depth, "image_mlp_dim": up[0], "patch_size": patches[2]}


def _activation(where: str, text: Options, name: str) -> str:
  approximate = text.take("act_kwargs", {}, dict).get("approximate", "none")
  if approximate not in GELUS:
    raise text.refusal(
      "act_kwargs", text.entries["act_kwargs"], [{"approximate": approximation} for approximation in GELUS]
    )
  activation = "gelu_tanh" if TANH.fullmatch(name) else "gelu"
  if GELUS[approximate] != activation:
    raise UserError(
      f"{where}: the text tower has {GELUS[approximate]}, and timm's {name} has {activation}. A SigLIP of the zoo "
      "has one activation: load the model from google/siglip... instead."
    )
  return activation
