"""T5 in the hub's layout, with T5 1.1, Flan-T5 and mT5: https://huggingface.co/google-t5/t5-small."""

import numpy as np

from zoo.convert.rules.layouts import LINEAR, Rule, attention, embedding, linear, mlp, norm
from zoo.convert.rules.options import ACTIVATIONS, Key, Options, entries, named_labels

MODEL_TYPES = ("t5", "mt5")
HEADS = {
  "lm": ("T5ForConditionalGeneration", "MT5ForConditionalGeneration", "T5WithLMHeadModel"),
  None: ("T5Model", "MT5Model"),
  "encoder": ("T5EncoderModel", "MT5EncoderModel"),
  "classify": ("T5ForSequenceClassification", "MT5ForSequenceClassification"),
  "classify_tokens": ("T5ForTokenClassification", "MT5ForTokenClassification"),
  "question_answering": ("T5ForQuestionAnswering", "MT5ForQuestionAnswering"),
}
ENCODERS = ("encoder", "classify_tokens")
PREFIX = "transformer."
TIED = {
  "encoder.embed_tokens.weight": "shared.weight",
  "decoder.embed_tokens.weight": "shared.weight",
  "lm_head.weight": "shared.weight",
}
# Old versions saved a relative bias for cross-attention, which has none.
IGNORED = (r"(transformer\.)?decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",)

# Their feed_forward_proj -> our (activation, gated). "gated-gelu" means the tanh approximation, for historical reasons.
FORWARD = {
  "relu": ("relu", False),
  "gated-gelu": ("gelu_tanh", True),
  **{name: (ours, False) for name, ours in ACTIVATIONS.items()},
  **{f"gated-{name}": (ours, True) for name, ours in ACTIVATIONS.items() if name != "gelu"},
}


def _keys(vocab_size, mlp_dim, depth, num_heads, forward):
  return (
    Key("vocab_size", "vocab_size", vocab_size),
    Key("d_model", "dim", 512),
    Key("d_kv", "head_dim", 64),
    Key("d_ff", "mlp_dim", mlp_dim),
    Key("num_layers", "depth", depth),
    Key("num_heads", "num_heads", num_heads),
    Key("feed_forward_proj", "forward", forward, FORWARD),
    Key("relative_attention_num_buckets", "num_buckets", 32),
    Key("relative_attention_max_distance", "max_distance", 128),
    Key("layer_norm_epsilon", "epsilon", 1e-6),
    Key("dropout_rate", "dropout", 0.1),
    Key("decoder_start_token_id", "start_token", 0),
    Key("eos_token_id", "eos", 1),
  )


_MULTILINGUAL = _keys(250112, 1024, 8, 6, "gated-gelu")
KEYS = {"t5": _keys(32128, 2048, 6, 8, "relu"), "mt5": _MULTILINGUAL, "umt5": _MULTILINGUAL}


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  kind = options.take("model_type", "t5")
  sizes = options.sizes(KEYS[kind])
  activation, gated = sizes.pop("forward")
  # Later entries that repeat feed_forward_proj take precedence.
  again = options.take("dense_act_fn", None, str)
  if again is not None and again not in ACTIVATIONS:
    raise options.refusal("dense_act_fn", again, ACTIVATIONS)
  sizes["activation"] = activation if again is None else ACTIVATIONS[again]
  sizes["gated"] = options.take("is_gated_act", gated)
  sizes["decoder_depth"] = options.take("num_decoder_layers", sizes["depth"])
  # Their configs have "tied" for models that are not; no mT5 is scaled.
  sizes["tied"] = _tied(tensors)
  scaled = options.take("scale_decoder_outputs", options.take("tie_word_embeddings", True))
  sizes["scaled"] = scaled and kind == "t5"
  sizes |= {"head": head, "num_classes": options.num_labels() if head in ("classify", "classify_tokens") else None}
  options.must_be("is_decoder", False)
  # A training-only rate; the sequence length in training, which does not limit relative positions.
  options.ignore("classifier_dropout", "n_positions")
  return sizes


def _tied(tensors):
  """Whether the output layer of these weights is tied to the embedding."""
  lm_head, embed = (tensors.get(f"{name}.weight") for name in ("lm_head", "shared"))
  return lm_head is None or embed is None or np.array_equal(lm_head, embed)


def config(sizes):
  """-> config.json"""
  full_sizes = {**sizes, "forward": (sizes["activation"], sizes["gated"])}
  full_sizes["mlp_dim"] = sizes["mlp_dim"] or 4 * sizes["dim"]
  full_sizes["head_dim"] = sizes["head_dim"] or sizes["dim"] // sizes["num_heads"]
  scaled = sizes["tied"] if sizes["scaled"] is None else sizes["scaled"]
  return {
    "model_type": "t5",
    "num_decoder_layers": _decoder_depth(sizes),
    "is_encoder_decoder": sizes["head"] not in ENCODERS,
    "tie_word_embeddings": scaled,  # Older versions read it as scale_decoder_outputs.
    "scale_decoder_outputs": scaled,
    **entries(KEYS["t5"], full_sizes),
    **({} if sizes["num_classes"] is None else named_labels(sizes["num_classes"])),
  }


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  rules, p = body_rules(sizes), prefix(sizes)
  for tower in (tower for tower, depth in towers(sizes).items() if depth):
    rules += embedding(f"{tower}/bias", f"{p}{tower}.block.0.layer.0.SelfAttention.relative_attention_bias")
  return rules


def prefix(sizes):
  """The prefix of every name for this head."""
  return PREFIX if sizes["head"] in ("classify", "classify_tokens") else ""


def towers(sizes):
  """Depths of the towers: {tower: depth}."""
  depths = {"encoder": sizes["depth"], "decoder": _decoder_depth(sizes)}
  return {"encoder": depths["encoder"]} if sizes["head"] in ENCODERS else depths


def _decoder_depth(sizes):
  return sizes["depth"] if sizes["decoder_depth"] is None else sizes["decoder_depth"]


def body_rules(sizes):
  """All rules except those of the relative biases."""
  head, rules, p = sizes["head"], [], prefix(sizes)
  for tower, depth in towers(sizes).items():
    for i in range(depth):
      ours, theirs = f"{tower}/stack/layer_{i}", f"{p}{tower}.block.{i}.layer"
      sublayers = [("self_attention", "attention_norm", "SelfAttention")]
      sublayers += [("cross_attention", "cross_norm", "EncDecAttention")] * (tower == "decoder")
      for j, (part, before, name) in enumerate(sublayers):
        rules += attention(f"{ours}/{part}", *[f"{theirs}.{j}.{name}.{x}" for x in "qkvo"], bias=False)
        rules += norm(f"{ours}/{before}", f"{theirs}.{j}.layer_norm", bias=False)
      last = f"{theirs}.{len(sublayers)}"
      names = {"up": "wi_1", "gate": "wi_0"} if sizes["gated"] else {"up": "wi"}
      into = {part: f"{last}.DenseReluDense.{name}" for part, name in names.items()}
      rules += mlp(f"{ours}/feed_forward", **into, down=f"{last}.DenseReluDense.wo", bias=False)
      rules += norm(f"{ours}/mlp_norm", f"{last}.layer_norm", bias=False)
    rules += norm(f"{tower}/norm", f"{p}{tower}.final_layer_norm", bias=False)
  rules += embedding("embed", f"{p}shared")
  if head == "lm" and not sizes["tied"]:
    rules += [Rule("logits/kernel", "lm_head.weight", LINEAR)]
  if head == "classify":
    rules += linear("classify/dense", "classification_head.dense") + linear(
      "classify/out", "classification_head.out_proj"
    )
  if head == "classify_tokens":
    rules += linear("classify_tokens", "classifier")
  if head == "question_answering":
    rules += linear("answer", "qa_outputs")
  return rules
