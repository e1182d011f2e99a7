"""Captioners of two models in the hub's layout: https://huggingface.co/nlpconnect/vit-gpt2-image-captioning."""

import importlib
import inspect
import typing

from zoo.convert import bert, clip_vision, dinov2, gpt, roberta, vit
from zoo.convert.rules import reference
from zoo.convert.rules.layouts import linear
from zoo.convert.rules.options import Options
from zoo.errors import UserError, shown
from zoo.layers.compute import Compute

MODEL_TYPES = ("vision-encoder-decoder",)
HEADS = {None: ("VisionEncoderDecoderModel",)}
# Family -> its table and, of the encoder without what the decoder does not read, the sizes that leave it out.
ENCODERS = {
  "vit": (vit, {"num_classes": None, "pooler": False}),
  "dinov2": (dinov2, {"num_classes": None}),
  "clip_vision": (clip_vision, {"embed_dim": None}),
}
# Family -> its table and the head that predicts tokens.
DECODERS = {"gpt": (gpt, "lm"), "bert": (bert, "mlm"), "roberta": (roberta, "mlm")}
RENAMED = bert.RENAMED
TIED = {
  f"decoder.{copy}": f"decoder.{original}" for table, _ in DECODERS.values() for copy, original in table.TIED.items()
}
IGNORED = (
  r"encoder\.pooler\..*",  # Of ViT, which nothing reads.
  r"encoder\.(vision_model\.)?embeddings\.position_ids",
  r"decoder\.transformer\.h\.\d+\.(attn|crossattention)\.(masked_)?bias",  # Masks saved as buffers by old versions.
  r"decoder\.(bert|roberta)\.embeddings\.position_ids",
)


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  encoder, decoder = (_section(options, name) for name in ("encoder", "decoder"))
  sizes = {"encoder": _part(encoder, ENCODERS, tensors), "decoder": _decoder(decoder, tensors)}
  entries = (options.entries, decoder.entries)
  starts = [part.get(name) for name in ("decoder_start_token_id", "bos_token_id") for part in entries]
  sizes["start_token"] = next((token for token in starts if token is not None), 0)
  options.ignore("decoder_start_token_id", "tie_word_embeddings")  # The decoder's own entry counts.
  encoder.done()
  decoder.done()
  return sizes


def _section(options, name):
  """The config of one part."""
  return options.section(name, reference.of(str(options.take(name, {}, dict).get("model_type"))))


def _part(section, kinds, tensors):
  """{"family", **sizes} of one part, with the head that is read."""
  model_type = section.entries.get("model_type")
  family = next((family for family, (table, _) in kinds.items() if model_type in table.MODEL_TYPES), None)
  if family is None:
    types = ", ".join(name for table, _ in kinds.values() for name in table.MODEL_TYPES)
    raise UserError(f"{section.where}: the zoo has no {shown(model_type)} here. It has: {types}.")
  table, rest = kinds[family]
  head = rest if isinstance(rest, str) else None
  front = "decoder." if head else "encoder."
  names = [name.removeprefix(front) for name in tensors if name.startswith(front)]
  return {"family": family, **table.sizes(section, head, names), **({} if head else rest)}


def _decoder(section, tensors):
  """{"family", **sizes} of the decoder, whose table refuses one, for it is not a model of its own there."""
  section.must_be("is_decoder", True)
  section.must_be("add_cross_attention", True)
  section.must_be("cross_attention_hidden_size", None)
  return _part(section.but(is_decoder=False, add_cross_attention=False), DECODERS, tensors)


def config(sizes):
  """-> config.json"""
  encoder, decoder = _parts(sizes)
  reads = {"is_decoder": True, "add_cross_attention": True}
  return {
    "model_type": "vision-encoder-decoder",
    "is_encoder_decoder": True,
    "tie_word_embeddings": False,
    "decoder_start_token_id": sizes["start_token"],
    "encoder": ENCODERS[encoder["family"]][0].config(encoder),
    "decoder": DECODERS[decoder["family"]][0].config(decoder) | reads,
  }


def generation(sizes):
  """-> generation_config.json"""
  return {"decoder_start_token_id": sizes["start_token"]}


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  encoder, decoder = _parts(sizes)
  table = DECODERS[decoder["family"]][0]
  writes = table.rules(decoder)
  for i in range(decoder["depth"]):
    writes += table.cross(f"stack/layer_{i}", i, decoder["dim"])
  parts = {"encoder": ENCODERS[encoder["family"]][0].rules(encoder), "decoder": writes}
  rules = [
    rule._replace(ours=f"{part}/{rule.ours}", theirs=f"{part}.{rule.theirs}")
    for part, of_part in parts.items()
    for rule in of_part
  ]
  return rules + (linear("project", "enc_to_dec_proj") if encoder["dim"] != decoder["dim"] else [])


def _parts(sizes):
  """All sizes of both parts, those of variants and defaults too."""
  encoder, decoder = (_complete(sizes[name], sizes) for name in ("encoder", "decoder"))
  for part, kinds in ((encoder, ENCODERS), (decoder, DECODERS)):
    if part["family"] not in kinds:
      raise UserError(
        f"The hub's captioners have no {part['family']} here, but {', '.join(kinds)}. Use zoo.save, or another family."
      )
  return encoder | ENCODERS[encoder["family"]][1], decoder | {"head": DECODERS[decoder["family"]][1]}


def _complete(part, whole):
  module = importlib.import_module(f"zoo.models.{part['family']}")
  parameters = inspect.signature(getattr(module, part["family"])).parameters
  defaults = {name: parameter.default for name, parameter in parameters.items()}
  for name, hint in typing.get_type_hints(Compute, include_extras=True).items():
    defaults[name] = whole.get(name, hint.__metadata__[0])
  return {**defaults, **module.VARIANTS.get(part.get("variant"), {}), **part}
