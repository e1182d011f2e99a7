"""CLIP in open_clip's layout: open_clip_config.json and its tensor names, https://github.com/mlfoundations/open_clip.

A conversion table like those of zoo/convert, for a second layout of the family `clip`, read-only.
"""

import pathlib
from typing import Any

from zoo.convert.rules import layouts
from zoo.convert.rules.layouts import Rule, embedding, mlp, norm
from zoo.convert.rules.options import Options
from zoo.errors import UserError, shown
from zoo.hub.files import OPEN_CLIP, WEIGHTS, Tensors, open_file

FILES = (OPEN_CLIP, "open_clip_pytorch_model.safetensors", WEIGHTS)

HEADS = {None: ("CLIP",)}
# Prefixes from data-parallel training, and of a text tower that is a submodule.
RENAMED = [(r"^module\.", ""), (r"^text\.", "")]
IGNORED = ("input_resolution|context_length|vocab_size|attn_mask",)  # Metadata in OpenAI's own files.

# Tower options of which the zoo supports only the default.
_TOWER = {
  "ls_init_value": (None,),
  "block_type": (None, "default"),
  "output_tokens": (False,),
  "act_kwargs": (None, {}),
  **dict.fromkeys(("qk_norm", "scaled_cosine_attn", "scale_heads"), (False,)),
  **dict.fromkeys(("scale_attn_inner", "scale_attn", "scale_fc"), (False,)),
}
IMAGE = _TOWER | {
  "timm_model_name": (None,),
  "attentional_pool": (False,),
  "no_ln_pre": (False,),
  "pos_embed_type": ("learnable",),
  "pool_type": ("tok",),
}
TEXT = _TOWER | {
  "hf_model_name": (None,),
  "embed_cls": (False,),
  "no_causal_mask": (False,),
  "proj_bias": (False,),
  "proj_type": ("linear",),
}
# Entries without effect given the above, training-only, or the tokenizer's.
IMAGE_REST = "patch_dropout attn_pooler_queries attn_pooler_heads final_ln_after_pool timm_model_pretrained timm_pool"
IMAGE_REST += " timm_proj timm_proj_bias timm_drop timm_drop_path"
TEXT_REST = "pad_id final_ln_after_pool hf_tokenizer_name tokenizer_mode tokenizer_kwargs hf_model_pretrained"
TEXT_REST += " hf_proj_type hf_pooler_type"


def open_weights(folder: pathlib.Path) -> Tensors:
  """The tensors of the first of FILES that exists in a folder."""
  file = next((folder / name for name in FILES if (folder / name).is_file()), None)
  if file is None:
    raise UserError(
      f"{folder} has none of {', '.join(FILES)}. Download one; pickled weights (.bin, .pt) are never read."
    )
  tensors = open_file(file)
  # A scalar, or a list of one, depending on the loss.
  scalars = {name for name, shape in tensors.shapes.items() if name.endswith(("logit_scale", "logit_bias"))}
  flat = {name: tensors.places[name]._replace(shape=()) for name in scalars if tensors.shapes[name] == (1,)}
  return Tensors(tensors.places | flat)


def sizes(options: Options) -> dict[str, Any]:
  """The entries of an open_clip_config.json -> arguments of `zoo.build("clip")`.

  Raises:
    UserError: a tower of timm, of transformers or a ResNet, a CoCa, or an unsupported option.
  """
  options.ignore("preprocess_cfg")  # The processor's: zoo/hub/open_clip_images.py.
  model = options.section("model_cfg")
  model.must_be("multimodal_cfg", None)
  image, text = model.section("vision_cfg"), model.section("text_cfg")
  only(image, IMAGE, IMAGE_REST)
  only(text, TEXT, TEXT_REST)
  if isinstance(image.entries.get("layers"), list):
    raise image.refusal("layers", image.entries["layers"], ["an int (ViT): the zoo has no ModifiedResNet"])
  epsilons = {section.where: epsilon(section) for section in (image, text)}
  if len(set(epsilons.values())) > 1:
    raise UserError(
      f"{options.where}: norm_kwargs differ, {[*epsilons.values()]}. The towers of a CLIP of the zoo share eps."
    )
  read_at = text.take("pool_type", "argmax")
  if read_at not in ("argmax", "eos"):
    raise text.refusal("pool_type", read_at, ["argmax", "eos"])
  eos = text.take("eos_id", 2)
  sizes: dict[str, Any] = {
    "embed_dim": count(model, "embed_dim"),
    "activation": "quick_gelu" if model.take("quick_gelu", False) else "gelu",
    "epsilon": epsilons[image.where],
    **tower("image", image, 768),
    "image_heads": count(image, "width", 768) // count(image, "head_width", 64),
    "patch_size": side(image, "patch_size", 16),
    "image_size": side(image, "image_size", 224),
    **tower("text", text, 512),
    "text_heads": count(text, "heads", 8),
    "max_length": count(text, "context_length", 77),
    "vocab_size": count(text, "vocab_size", 49408),
    "read_at": "largest" if read_at == "argmax" else "eos",
    "eos": None if read_at == "argmax" else eos,
  }
  bias = model.take("init_logit_bias", None, (int, float))
  sizes["logit_bias"] = None if bias is None else float(bias)
  model.ignore("custom_text", "init_logit_scale", "nonscalar_logit_scale", "output_dict", "cast_dtype")
  for section in (image, text, model, options):
    section.done()
  return sizes


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  rules = [Rule("logit_scale", "logit_scale")]
  rules += [Rule("logit_bias", "logit_bias")] if sizes["logit_bias"] is not None else []
  for tower, front in (("image", "visual."), ("text", "")):
    rules += layer_rules(tower, front, sizes[f"{tower}_depth"], sizes[f"{tower}_dim"])
  rules += [Rule("image/class_token/embedding", "visual.class_embedding", layouts.FLAT)]
  rules += [Rule("image/patches/kernel", "visual.conv1.weight", layouts.CONV)]
  rules += [Rule("image/projection/kernel", "visual.proj"), Rule("text/projection/kernel", "text_projection")]
  rules += norm("image/pre_norm", "visual.ln_pre") + norm("image/norm", "visual.ln_post")
  return rules + embedding("text/embed", "token_embedding") + norm("text/norm", "ln_final")


def layer_rules(tower: str, front: str, depth: int, dim: int) -> list[Rule]:
  """Rules of the positions and layers of a tower, "text" or "image"; names start with `front`."""
  rules = [Rule(f"{tower}/positions/embedding", f"{front}positional_embedding")]
  for i in range(depth):
    ours, theirs = f"{tower}/stack/layer_{i}", f"{front}transformer.resblocks.{i}"
    rules += packed(f"{ours}/self_attention", f"{theirs}.attn.in_proj_{{}}", ("query", "key", "value"), dim)
    rules += layouts.heads_out(f"{ours}/self_attention/out", f"{theirs}.attn.out_proj")
    rules += mlp(f"{ours}/feed_forward", f"{theirs}.mlp.c_fc", f"{theirs}.mlp.c_proj")
    rules += norm(f"{ours}/attention_norm", f"{theirs}.ln_1") + norm(f"{ours}/mlp_norm", f"{theirs}.ln_2")
  return rules


def packed(ours: str, theirs: str, parts: tuple[str, ...], dim: int) -> list[Rule]:
  """Rules of projections to heads fused in `theirs`, a format string for "weight" and "bias"."""
  ends = (("kernel", "weight", layouts.HEADS), ("bias", "bias", layouts.HEADS_BIAS))
  return [
    Rule(f"{ours}/{part}/{end}", theirs.format(their_end), layout, stretch=(0, i * dim, len(parts) * dim))
    for i, part in enumerate(parts)
    for end, their_end, layout in ends
  ]


def tower(name: str, section: Options, width: int) -> dict[str, Any]:
  """Width, depth and mlp_dim of a tower, "image" or "text"; `width` is the default."""
  width = count(section, "width", width)
  depth, ratio = count(section, "layers", 12), section.take("mlp_ratio", 4.0)
  if not 0 < ratio < 1000:
    raise UserError(f"{section.where}: mlp_ratio is {ratio}. It must be a number above 0.")
  if depth > (section.tensors or depth):
    raise UserError(f"{section.where}: layers is {depth}, but the file holds only {section.tensors} tensors.")
  return {f"{name}_dim": width, f"{name}_depth": depth, f"{name}_mlp_dim": int(width * ratio)}


def only(section: Options, allowed: dict[str, tuple], rest: str) -> None:
  """UserError for entries with values that are not `allowed`; those of `rest` may have any."""
  for name, values in allowed.items():
    section.must_be(name, *values)
  section.ignore(*rest.split())


def count(options: Options, name: str, default: int | None = None) -> int:
  """An int entry of at least 1."""
  value = options.take(name, default, int)
  if value is None or not 0 < value < 2**31:
    raise UserError(f"{options.where}: {name} is {shown(value)}. It must be an int of at least 1.")
  return value


def side(options: Options, name: str, default: int) -> int:
  """A square size: one int, or a list of two equal ones."""
  value = options.take(name, default, (int, list))
  value = value[0] if isinstance(value, list) and len(value) == 2 and value[0] == value[1] else value
  if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**15:
    raise options.refusal(name, options.entries[name], ["a number of pixels, of a square"])
  return value


def epsilon(options: Options) -> float:
  """The epsilon of a tower's norms."""
  arguments = options.take("norm_kwargs", {}, dict)
  value = arguments.get("eps", 1e-5)
  if set(arguments) - {"eps"} or not isinstance(value, float) or not 0 <= value < 1:
    raise options.refusal("norm_kwargs", arguments, [{"eps": 1e-5}])
  return value
