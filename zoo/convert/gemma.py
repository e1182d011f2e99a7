"""Gemma, Gemma 2 and the text model of Gemma 3 in the hub's layout: https://huggingface.co/google/gemma-3-1b-it."""

from zoo.convert.llama import full, self_attention
from zoo.convert.rules.decoders import (
  ROPE,
  head_rules,
  heads_and_pad,
  layer_kinds,
  layer_types,
  rope,
  rope_entries,
  rope_of,
  rope_section,
)
from zoo.convert.rules.layouts import embedding, mlp, norm
from zoo.convert.rules.options import ACTIVATIONS, Key, Options, entries, named_labels
from zoo.errors import UserError

ARCHITECTURES = {
  "gemma3_text": {
    "lm": "Gemma3ForCausalLM",
    "classify": "Gemma3TextForSequenceClassification",
    None: "Gemma3TextModel",
  },
  "gemma2": {
    "lm": "Gemma2ForCausalLM",
    "classify": "Gemma2ForSequenceClassification",
    "classify_tokens": "Gemma2ForTokenClassification",
    None: "Gemma2Model",
  },
  "gemma": {
    "lm": "GemmaForCausalLM",
    "classify": "GemmaForSequenceClassification",
    "classify_tokens": "GemmaForTokenClassification",
    None: "GemmaModel",
  },
}
MODEL_TYPES = tuple(ARCHITECTURES)
HEADS = {head: tuple(names[head] for names in ARCHITECTURES.values() if head in names)
         for head in ARCHITECTURES["gemma"]}  # fmt: skip
PREFIX = "model."
TIED = {"lm_head.weight": "model.embed_tokens.weight"}
IGNORED = (r"(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)  # Buffers saved by old versions.

KEYS = (
  Key("rms_norm_eps", "epsilon", 1e-6),
  Key("head_dim", "head_dim", 256),
  Key("attention_bias", "attention_bias", False),
  Key("attention_dropout", "dropout", 0.0),
  Key("tie_word_embeddings", "tied", True),
)
# Sizes whose default depends on model_type.
SIZES = {
  Key("vocab_size", "vocab_size"): dict(gemma=256000, gemma2=256000, gemma3_text=262208),
  Key("hidden_size", "dim"): dict(gemma=3072, gemma2=2304, gemma3_text=2304),
  Key("intermediate_size", "mlp_dim"): dict(gemma=24576, gemma2=9216, gemma3_text=9216),
  Key("num_hidden_layers", "depth"): dict(gemma=28, gemma2=26, gemma3_text=26),
  Key("num_attention_heads", "num_heads"): dict(gemma=16, gemma2=8, gemma3_text=8),
  Key("num_key_value_heads", "num_kv_heads"): dict(gemma=16, gemma2=4, gemma3_text=4),
  Key("max_position_embeddings", "max_length"): dict(gemma=8192, gemma2=8192, gemma3_text=131072),
}
# "gelu" in the first configs means the tanh approximation that the weights were trained with.
FIRST_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", **ACTIVATIONS, "gelu": "gelu_tanh"}
LATER_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", **ACTIVATIONS}
NUMBER = (int, float)


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  kind = options.take("model_type", "gemma3_text")
  sizes = options.sizes(KEYS) | options.sizes(key._replace(default=of[kind]) for key, of in SIZES.items())
  sizes |= heads_and_pad(options, sizes, pad=0)
  sizes |= {"head": head, "sandwich": kind != "gemma", "qk_norm": kind == "gemma3_text"}
  sizes["num_classes"] = options.num_labels() if head in ("classify", "classify_tokens") else None
  if kind == "gemma":
    sizes |= options.sizes([Key("hidden_act", "activation", "gelu_pytorch_tanh", FIRST_ACTIVATIONS)])
    options.must_be("hidden_activation", None, "gelu_pytorch_tanh")
  else:
    sizes |= options.sizes([Key("hidden_activation", "activation", "gelu_pytorch_tanh", LATER_ACTIVATIONS)])
    sizes["query_scalar"] = options.take("query_pre_attn_scalar", 256)
    sizes["window"] = options.nullable("sliding_window", 4096)
    period = 2 if kind == "gemma2" else options.take("sliding_window_pattern", 6)
    if period < 1:
      raise options.refusal("sliding_window_pattern", period, ("1 or more",))
    sizes["pattern"] = layer_kinds(options, [(i + 1) % period > 0 for i in range(sizes["depth"])])
    sizes["cap"] = options.nullable("final_logit_softcapping", 30.0 if kind == "gemma2" else None, NUMBER)
  if kind == "gemma2":
    sizes["attention_cap"] = options.nullable("attn_logit_softcapping", 50.0, NUMBER)
  if kind == "gemma3_text":
    sizes["bidirectional"] = options.take("use_bidirectional_attention", False)
    options.ignore("attn_logit_softcapping")  # The reference does not apply it.
    sizes |= _two_ropes(options, sizes["max_length"])
  else:
    # In the reference its effect depends on the attention kernel.
    options.must_be("use_bidirectional_attention", None, False)
    sizes |= rope(options, sizes["max_length"])
  # Other names of entries read above, and kinds of caches.
  options.ignore("_sliding_window_pattern", "sliding_window_size", "cache_implementation", "classifier_dropout")
  if kind != "gemma":
    options.ignore("hidden_act")
  return sizes


def _two_ropes(options: Options, max_length):
  """RoPE settings of global and local layers: from rope_parameters, or from rope_scaling and two bases."""
  both = options.section("rope_parameters")
  near, far = (both.section(name, ROPE) for name in ("sliding_attention", "full_attention"))
  both.done()
  # The reference takes a scaling without rope_type as type "default".
  far.entries = {"rope_type": "default", **far.entries, **options.take("rope_scaling", {}, dict)}
  everywhere = rope_of(far, max_length, options.take("rope_theta", 1_000_000.0))
  nearby = rope_of(near, max_length, options.take("rope_local_base_freq", 10_000.0))
  return {**everywhere, "local_theta": nearby["theta"], "local_rope": nearby["rope"]}


def config(sizes):
  """-> config.json"""
  kind = "gemma3_text" if sizes["qk_norm"] else "gemma2" if sizes["sandwich"] else "gemma"
  architecture = ARCHITECTURES[kind].get(sizes["head"])
  first, two_ropes = kind == "gemma", sizes["local_theta"] is not None
  pattern = sizes["pattern"] or ["global" if sizes["window"] is None else "local"]
  fits = {
    "head": architecture is not None,
    "pattern": not first or "local" not in pattern,
    "query_scalar": not first or sizes["query_scalar"] in (None, full(sizes)["head_dim"]),
    "cap": not first or sizes["cap"] is None,
    "attention_cap": kind == "gemma2" or sizes["attention_cap"] is None,
    "bidirectional": kind == "gemma3_text" or not sizes["bidirectional"],
    "sandwich": sizes["sandwich"] or not sizes["qk_norm"],
    "local_theta": two_ropes == (kind == "gemma3_text"),
  }
  wrong = [name for name, fit in fits.items() if not fit]
  if wrong:
    raise UserError(f"The hub's {kind} cannot have this {', '.join(wrong)}. Change these sizes.")
  config = entries((*KEYS, *SIZES), full(sizes))
  config |= {"model_type": kind, "architectures": [architecture], "pad_token_id": sizes["pad"]}
  activation = next(theirs for theirs, ours in LATER_ACTIVATIONS.items() if ours == sizes["activation"])
  if first:
    config |= {"hidden_act": activation}
  else:
    config |= {"hidden_activation": activation, "sliding_window": sizes["window"]}
    config |= {"query_pre_attn_scalar": sizes["query_scalar"] or full(sizes)["head_dim"]}
    config |= {"layer_types": layer_types(pattern, sizes["depth"]), "final_logit_softcapping": sizes["cap"]}
  if kind == "gemma2":
    config |= {"attn_logit_softcapping": sizes["attention_cap"]}
  if kind == "gemma3_text":
    config |= {"use_bidirectional_attention": sizes["bidirectional"], "rope_parameters": _rope_parameters(sizes)}
  else:
    config |= rope_entries(sizes)
  return config | ({} if sizes["num_classes"] is None else named_labels(sizes["num_classes"]))


def _rope_parameters(sizes):
  length = sizes["max_length"]
  near, far = (rope_section(sizes[name], length) or {"rope_type": "default"} for name in ("local_rope", "rope"))
  return {
    "sliding_attention": {**near, "rope_theta": sizes["local_theta"]},
    "full_attention": {**far, "rope_theta": sizes["theta"]},
  }


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  p, rules = "" if sizes["head"] is None else PREFIX, []
  for i in range(sizes["depth"]):
    ours, theirs = f"stack/layer_{i}", f"{p}layers.{i}"
    rules += self_attention(f"{ours}/self_attention", f"{theirs}.self_attn", {**sizes, "out_bias": None})
    rules += mlp(f"{ours}/feed_forward", *(f"{theirs}.mlp.{name}_proj" for name in ("up", "down", "gate")), bias=False)
    names = {"attention_norm": "input", "mlp_norm": "post_attention"}
    if sizes["sandwich"]:
      names |= {"attention_after": "post_attention", "mlp_norm": "pre_feedforward", "mlp_after": "post_feedforward"}
    for part, name in names.items():
      rules += norm(f"{ours}/{part}", f"{theirs}.{name}_layernorm", bias=False)
  rules += embedding("embed", f"{p}embed_tokens") + norm("norm", f"{p}norm", bias=False)
  return rules + head_rules(sizes)
