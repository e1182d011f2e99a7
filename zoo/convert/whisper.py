"""Whisper in the hub's layout: https://huggingface.co/openai/whisper-tiny."""

from zoo.convert import bart
from zoo.convert.rules.layouts import CONV_1D, Rule, embedding, linear, norm
from zoo.convert.rules.options import Key, Options, named_labels

MODEL_TYPES = ("whisper",)
HEADS = {
  "lm": ("WhisperForConditionalGeneration",),
  None: ("WhisperModel",),
  "classify": ("WhisperForAudioClassification",),
}
PREFIX = bart.PREFIX
TIED = {"proj_out.weight": "model.decoder.embed_tokens.weight"}

KEYS = (
  *bart.tower_keys(384, 4, 6, 1536),
  Key("vocab_size", "vocab_size", 51865),
  Key("num_mel_bins", "mels", 80),
  Key("max_source_positions", "source_length", 1500),
  Key("max_target_positions", "max_length", 448),
  Key("classifier_proj_size", "projection_dim", 256),
  Key("dropout", "dropout", 0.0),
  Key("decoder_start_token_id", "start_token", 50257),
)


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  sizes = bart.tower_sizes(options, KEYS)
  sizes |= {"pad": options.nullable("pad_token_id", 50256)}
  eos = options.take("eos_token_id", None, (int, list))
  sizes["eos"] = eos if isinstance(eos, int) and 0 <= eos < sizes["vocab_size"] else None
  sizes |= {"head": head, "num_classes": options.num_labels() if head == "classify" else None}
  options.must_be("use_weighted_layer_sum", False)
  # Never read by the reference; training-time augmentation; generation and timestamp settings.
  options.ignore("scale_embedding", "apply_spec_augment", "median_filter_width", "forced_decoder_ids")
  for axis in ("time", "feature"):
    options.ignore(*(f"mask_{axis}_{what}" for what in ("prob", "length", "min_masks")))
  return sizes


def config(sizes):
  """-> config.json"""
  labels = {} if sizes["num_classes"] is None else named_labels(sizes["num_classes"])
  ends = {"bos_token_id": _eos(sizes), "eos_token_id": _eos(sizes)}
  return {"model_type": "whisper", "pad_token_id": sizes["pad"], **bart.tower_entries(KEYS, sizes), **ends, **labels}


def generation(sizes):
  """-> generation_config.json"""
  tokens = {"bos_token_id": _eos(sizes), "eos_token_id": _eos(sizes), "pad_token_id": sizes["pad"]}
  return {**tokens, "decoder_start_token_id": sizes["start_token"]} if sizes["head"] == "lm" else {}


def _eos(sizes):
  """The end-of-transcript token, also written as bos; the padding token if there is none."""
  return sizes["pad"] if sizes["eos"] is None else sizes["eos"]


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  head = sizes["head"]
  p = PREFIX if head == "lm" else ""
  rules = []
  for i in range(2):
    rules += [Rule(f"stem/conv_{i}/kernel", f"{p}encoder.conv{i + 1}.weight", CONV_1D)]
    rules += [Rule(f"stem/conv_{i}/bias", f"{p}encoder.conv{i + 1}.bias")]
  for tower in ("encoder",) if head == "classify" else ("encoder", "decoder"):
    rules += bart.layers(sizes, tower, p, key_bias=False)
    rules += embedding(f"{tower}/positions", f"{p}{tower}.embed_positions")
    rules += norm(f"{tower}/norm", f"{p}{tower}.layer_norm")
  if head == "classify":
    return rules + linear("classify/project", "projector") + linear("classify/out", "classifier")
  return rules + embedding("embed", f"{p}decoder.embed_tokens")
