"""Marian in the hub's layout: https://huggingface.co/Helsinki-NLP/opus-mt-en-de."""

from zoo.convert import bart
from zoo.convert.rules.layouts import embedding
from zoo.convert.rules.options import Key, Options

MODEL_TYPES = ("marian",)
HEADS = {"lm": ("MarianMTModel",), None: ("MarianModel",)}
PREFIX = bart.PREFIX
TIED = bart.TIED
SPARE = bart.SPARE
IGNORED = (r"(model\.)?(encoder|decoder)\.embed_positions\.weight",)  # Sinusoidal positions are computed.

KEYS = (
  *bart.tower_keys(1024, 12, 16, 4096),
  Key("vocab_size", "vocab_size", 58101),
  Key("max_position_embeddings", "max_length", 1024),
  Key("scale_embedding", "scaled_embedding", False),
  Key("dropout", "dropout", 0.1),
  Key("decoder_start_token_id", "start_token", 58100),
)


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  sizes = bart.tower_sizes(options, KEYS)
  sizes |= {"pad": options.nullable("pad_token_id", 58100), "logits_bias": bart.has_bias(tensors), "head": head}
  decoder_vocab_size = options.take("decoder_vocab_size", sizes["vocab_size"])
  if options.take("share_encoder_decoder_embeddings", True):
    options.must_be("decoder_vocab_size", sizes["vocab_size"], None)
    decoder_vocab_size = None
  sizes["decoder_vocab_size"] = decoder_vocab_size
  options.must_be("normalize_embedding", False)
  options.must_be("static_position_embeddings", True)
  return sizes


def config(sizes):
  """-> config.json"""
  decoder_vocab_size = sizes["decoder_vocab_size"]
  return {
    "model_type": "marian",
    "pad_token_id": sizes["pad"],
    "decoder_vocab_size": sizes["vocab_size"] if decoder_vocab_size is None else decoder_vocab_size,
    "share_encoder_decoder_embeddings": decoder_vocab_size is None,
    **bart.tower_entries(KEYS, sizes),
  }


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  p = "" if sizes["head"] is None else PREFIX
  if sizes["decoder_vocab_size"] is None:
    rules = embedding("embed", f"{p}shared")
  else:
    rules = embedding("embed", f"{p}encoder.embed_tokens")
    rules += embedding("decoder_embed", f"{p}decoder.embed_tokens")
  return rules + bart.layers(sizes, "encoder", p) + bart.layers(sizes, "decoder", p) + bart.output(sizes)
