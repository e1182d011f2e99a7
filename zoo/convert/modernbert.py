"""ModernBERT in the hub's layout: https://huggingface.co/answerdotai/ModernBERT-base."""

from zoo.convert.rules.decoders import ROPE, layer_kinds, layer_types, rope_of, rope_section
from zoo.convert.rules.layouts import HEADS as TO_HEADS
from zoo.convert.rules.layouts import HEADS_BIAS, LINEAR, Rule, embedding, heads_out, linear, norm
from zoo.convert.rules.options import ACTIVATIONS, Key, Options, entries, named_labels

MODEL_TYPES = ("modernbert",)
HEADS = {
  "mlm": ("ModernBertForMaskedLM",),
  None: ("ModernBertModel",),
  "classify": ("ModernBertForSequenceClassification",),
  "classify_tokens": ("ModernBertForTokenClassification",),
  "question_answering": ("ModernBertForQuestionAnswering",),
  "multiple_choice": ("ModernBertForMultipleChoice",),
}
PREFIX = "model."
TIED = {"decoder.weight": "model.embeddings.tok_embeddings.weight"}

KEYS = (
  Key("vocab_size", "vocab_size", 50368),
  Key("max_position_embeddings", "max_length", 8192),
  Key("hidden_size", "dim", 768),
  Key("num_hidden_layers", "depth", 22),
  Key("num_attention_heads", "num_heads", 12),
  Key("intermediate_size", "mlp_dim", 1152),
  Key("local_attention", "window", 128),
  Key("hidden_activation", "activation", "gelu", ACTIVATIONS),
  Key("classifier_activation", "head_activation", "gelu", ACTIVATIONS),
  Key("classifier_pooling", "pooling", "cls", {"cls": "cls", "mean": "mean"}),
  Key("norm_eps", "epsilon", 1e-5),
  Key("norm_bias", "norm_bias", False),
  Key("attention_bias", "attention_bias", False),
  Key("mlp_bias", "mlp_bias", False),
  Key("decoder_bias", "mlm_bias", True),
  Key("classifier_bias", "head_bias", False),
  Key("mlp_dropout", "dropout", 0.0),
)
RATES = ("attention_dropout", "embedding_dropout", "classifier_dropout")
FAR, NEAR = "full_attention", "sliding_attention"


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  sizes = options.sizes(KEYS)
  sizes |= {"head": head, "num_classes": options.num_labels() if head in ("classify", "classify_tokens") else None}
  sizes["pad"] = options.nullable("pad_token_id", 50283)
  period = options.take("global_attn_every_n_layers", 3)
  if period < 1:
    raise options.refusal("global_attn_every_n_layers", period, ("1 or more",))
  sizes["pattern"] = layer_kinds(options, [i % period > 0 for i in range(sizes["depth"])])
  sizes |= _two_ropes(options, sizes["max_length"])
  options.must_be("tie_word_embeddings", True)
  # Training-only rates, compilation, initialisation and losses; entries of published files that nothing reads.
  options.ignore(*RATES, "deterministic_flash_attn", "reference_compile", "initializer_cutoff_factor", "cls_token_id")
  options.ignore("sparse_prediction", "sparse_pred_ignore_index", "repad_logits_with_grad", "layer_norm_eps")
  options.ignore("position_embedding_type")
  return sizes


def _two_ropes(options: Options, max_length):
  """RoPE settings of global and local layers: from rope_parameters, or from two bases and a shared rope_scaling."""
  both, scaling = options.section("rope_parameters"), options.take("rope_scaling", {}, dict)
  far, near = (both.section(name, ROPE) for name in (FAR, NEAR))
  both.done()
  for section in (far, near):
    section.entries |= scaling
  everywhere = rope_of(far, max_length, options.take("global_rope_theta", 160_000.0))
  # null: local layers have the base of the global ones.
  theta = options.nullable("local_rope_theta", 10_000.0, (int, float))
  nearby = rope_of(near, max_length, everywhere["theta"] if theta is None else theta)
  return {**everywhere, "local_theta": nearby["theta"], "local_rope": nearby["rope"]}


def config(sizes):
  """-> config.json"""
  pattern = sizes["pattern"] or ["global", "local", "local"]
  config = entries(KEYS, sizes) | dict.fromkeys(RATES, sizes["dropout"])
  config |= {"model_type": "modernbert", "tie_word_embeddings": True, "pad_token_id": sizes["pad"]}
  config |= {"layer_types": layer_types(pattern, sizes["depth"]), **_rope_entries(sizes)}
  if pattern[0] == "global" and "global" not in pattern[1:]:
    config["global_attn_every_n_layers"] = len(pattern)  # Read by versions before 5.
  return config | ({} if sizes["num_classes"] is None else named_labels(sizes["num_classes"]))


def _rope_entries(sizes):
  """RoPE entries for all versions of the reference; only versions since 5 have a scaling."""
  if sizes["rope"] is None and sizes["local_rope"] is None:
    return {"global_rope_theta": sizes["theta"], "local_rope_theta": sizes["local_theta"]}
  far, near = (rope_section(sizes[name], sizes["max_length"]) for name in ("rope", "local_rope"))
  return {
    "rope_parameters": {
      FAR: {**(far or {"rope_type": "default"}), "rope_theta": sizes["theta"]},
      NEAR: {**(near or {"rope_type": "default"}), "rope_theta": sizes["local_theta"]},
    }
  }


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  head, norm_bias = sizes["head"], sizes["norm_bias"]
  p = "" if head is None else PREFIX
  rules = embedding("embed", f"{p}embeddings.tok_embeddings")
  rules += norm("first_norm", f"{p}embeddings.norm", bias=norm_bias) + norm("norm", f"{p}final_norm", bias=norm_bias)
  for i in range(sizes["depth"]):
    ours, theirs = f"stack/layer_{i - 1}" if i else "first/layer_0", f"{p}layers.{i}"
    rules += _attention(f"{ours}/self_attention", f"{theirs}.attn", sizes)
    rules += _mlp(f"{ours}/feed_forward", f"{theirs}.mlp", sizes)
    rules += norm(f"{ours}/attention_norm", f"{theirs}.attn_norm", bias=norm_bias) if i else []
    rules += norm(f"{ours}/mlp_norm", f"{theirs}.mlp_norm", bias=norm_bias)
  if head is not None:
    rules += linear("summary/dense", "head.dense", bias=sizes["head_bias"])
    rules += norm("summary/norm", "head.norm", bias=norm_bias)
  if head == "mlm" and sizes["mlm_bias"]:
    rules += [Rule("mlm/bias", "decoder.bias")]
  last = {"classify": "classify", "multiple_choice": "choose", "classify_tokens": "classify_tokens"}
  last |= {"question_answering": "answer"}
  return rules + (linear(last[head], "classifier") if head in last else [])


def _attention(ours, theirs, sizes):
  """Rules of an attention whose query, key and value are fused in one matrix."""
  rules, dim = heads_out(f"{ours}/out", f"{theirs}.Wo", bias=sizes["attention_bias"]), sizes["dim"]
  for part, name in enumerate(("query", "key", "value")):
    stretch = (0, part * dim, 3 * dim)
    rules += [Rule(f"{ours}/{name}/kernel", f"{theirs}.Wqkv.weight", TO_HEADS, stretch=stretch)]
    rules += [Rule(f"{ours}/{name}/bias", f"{theirs}.Wqkv.bias", HEADS_BIAS, stretch=stretch)] * sizes["attention_bias"]
  return rules


def _mlp(ours, theirs, sizes):
  """Rules of a gated MLP with gate and up fused in one matrix, gate first."""
  rules, width = linear(f"{ours}/down", f"{theirs}.Wo", bias=sizes["mlp_bias"]), sizes["mlp_dim"]
  for part, name in enumerate(("gate", "up")):
    stretch = (0, part * width, 2 * width)
    rules += [Rule(f"{ours}/{name}/kernel", f"{theirs}.Wi.weight", LINEAR, stretch=stretch)]
    rules += [Rule(f"{ours}/{name}/bias", f"{theirs}.Wi.bias", stretch=stretch)] * sizes["mlp_bias"]
  return rules
