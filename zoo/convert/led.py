"""LED in the hub's layout: https://huggingface.co/allenai/led-base-16384. Its decoder is named as BART's."""

from zoo.convert import bart
from zoo.convert.rules.layouts import embedding, heads, heads_out, linear, norm
from zoo.convert.rules.options import Key, Options

MODEL_TYPES = ("led",)
HEADS = {
  "lm": ("LEDForConditionalGeneration",),
  None: ("LEDModel",),
  "question_answering": ("LEDForQuestionAnswering",),
}
PREFIX = "led."
TIED = {
  "led.encoder.embed_tokens.weight": "led.shared.weight",
  "led.decoder.embed_tokens.weight": "led.shared.weight",
  "lm_head.weight": "led.shared.weight",
}
SPARE = ("final_logits_bias",)

KEYS = (
  *bart.tower_keys(1024, 12, 16, 4096),
  Key("vocab_size", "vocab_size", 50265),
  Key("max_encoder_position_embeddings", "source_length", 16384),
  Key("max_decoder_position_embeddings", "max_length", 1024),
  Key("dropout", "dropout", 0.1),
  Key("decoder_start_token_id", "start_token", 2),
  Key("eos_token_id", "eos", 2),
)


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  sizes = bart.tower_sizes(options, KEYS) | {"head": head}
  sizes |= {"pad": options.nullable("pad_token_id", 1), "logits_bias": bart.has_bias(tensors)}
  sizes["window"] = options.take("attention_window", 512, (int, list))
  options.must_be("attention_mode", "longformer", "sliding_chunks")
  options.must_be("attention_dilation", None, [1] * sizes["depth"])
  options.must_be("autoregressive", False)
  options.must_be("normalize_embedding", True)
  options.must_be("static_position_embeddings", False)
  options.must_be("scale_embedding", False)
  options.ignore("gradient_checkpointing", "max_position_embeddings")
  return sizes


def config(sizes):
  """-> config.json"""
  window = sizes["window"]
  return {
    "model_type": "led",
    "pad_token_id": sizes["pad"],
    "attention_window": [window] * sizes["depth"] if isinstance(window, int) else list(window),
    "forced_eos_token_id": sizes["eos"],
    **bart.tower_entries(KEYS, sizes),
  }


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  head = sizes["head"]
  p = "" if head is None else PREFIX
  rules = embedding("embed", f"{p}shared")
  for tower in ("encoder", "decoder"):
    layers = bart.layers(sizes, tower, p)
    rules += [rule for rule in layers if tower == "decoder" or "/self_attention/" not in rule.ours]
    rules += embedding(f"{tower}/positions", f"{p}{tower}.embed_positions")
    rules += norm(f"{tower}/first_norm", f"{p}{tower}.layernorm_embedding")
  for i in range(sizes["depth"]):
    ours, theirs = f"encoder/stack/layer_{i}/self_attention", f"{p}encoder.layers.{i}.self_attn"
    for name in ("query", "key", "value"):
      rules += heads(f"{ours}/{name}", f"{theirs}.longformer_self_attn.{name}")
      rules += heads(f"{ours}/global_{name}", f"{theirs}.longformer_self_attn.{name}_global")
    rules += heads_out(f"{ours}/out", f"{theirs}.output")
  if head == "question_answering":
    rules += linear("answer", "qa_outputs")
  return rules + bart.output(sizes)
