"""Llama, Mistral, Qwen 2 and Qwen 3 in the hub's layout: https://huggingface.co/meta-llama/Llama-3.2-1B and others."""

from zoo.convert.rules.decoders import head_rules, heads_and_pad, layer_kinds, layer_types, rope, rope_entries
from zoo.convert.rules.layouts import embedding, heads, heads_out, mlp, norm
from zoo.convert.rules.options import ACTIVATIONS, Key, Options, entries, named_labels
from zoo.errors import UserError

_CLASSES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
_ENDINGS = {
  "lm": "ForCausalLM",
  "classify": "ForSequenceClassification",
  "classify_tokens": "ForTokenClassification",
  "question_answering": "ForQuestionAnswering",
  None: "Model",
}
MODEL_TYPES = tuple(_CLASSES)
HEADS = {head: tuple(name + ending for name in _CLASSES.values()) for head, ending in _ENDINGS.items()}
PREFIX = ("model.", "transformer.")  # The second with a question answering head.
TIED = {"lm_head.weight": "model.embed_tokens.weight"}
IGNORED = (r"(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)  # Buffers saved by old versions.

KEYS = (
  Key("hidden_size", "dim", 4096),
  Key("num_hidden_layers", "depth", 32),
  Key("num_attention_heads", "num_heads", 32),
  Key("hidden_act", "activation", "silu", ACTIVATIONS),
  Key("rms_norm_eps", "epsilon", 1e-6),
  Key("attention_dropout", "dropout", 0.0),
  Key("tie_word_embeddings", "tied", False),
)
# Defaults depend on model_type.
SIZES = {
  Key("vocab_size", "vocab_size"): dict(llama=32000, mistral=32000, qwen2=151936, qwen3=151936),
  Key("intermediate_size", "mlp_dim"): dict(llama=11008, mistral=14336, qwen2=22016, qwen3=22016),
  Key("max_position_embeddings", "max_length"): dict(llama=2048, mistral=131072, qwen2=32768, qwen3=32768),
  Key("num_key_value_heads", "num_kv_heads"): dict(llama=None, mistral=8, qwen2=32, qwen3=32),
  Key("head_dim", "head_dim"): dict(llama=None, mistral=None, qwen2=None, qwen3=128),
}


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  kind = options.take("model_type", "llama")
  sizes = options.sizes(KEYS) | options.sizes(key._replace(default=of[kind]) for key, of in SIZES.items())
  sizes |= heads_and_pad(options, sizes)
  sizes |= rope(options, sizes["max_length"])
  sizes |= {"model_type": kind, "head": head, "qk_norm": kind == "qwen3"}
  sizes["num_classes"] = options.num_labels() if head in ("classify", "classify_tokens") else None
  if kind == "llama":
    sizes["mlp_bias"] = options.take("mlp_bias", False)
    options.ignore("pretraining_tp")  # Tensor parallel computation.
  if kind in ("llama", "qwen3"):
    sizes["attention_bias"] = options.take("attention_bias", False)
  if kind == "qwen2":
    sizes |= {"attention_bias": True, "out_bias": False}
  if kind == "mistral":
    sizes["window"] = options.nullable("sliding_window", 4096)
  if kind in ("qwen2", "qwen3"):
    window, first = options.nullable("sliding_window", 4096), options.take("max_window_layers", 28)
    window = window if options.take("use_sliding_window", False) else None
    local = [window is not None and i >= first for i in range(sizes["depth"])]
    pattern = layer_kinds(options, local)
    sizes |= {"pattern": pattern, "window": window if "local" in pattern else None}
  options.ignore("classifier_dropout")
  return sizes


def config(sizes):
  """-> config.json"""
  pattern = sizes["pattern"] or ["global" if sizes["window"] is None else "local"]
  kinds = MODEL_TYPES if sizes["model_type"] is None else (sizes["model_type"],)
  wrong = {kind: _misfits(kind, sizes, pattern) for kind in kinds}
  kind = next((kind for kind in kinds if not wrong[kind]), None)
  if kind is None:
    why = "; ".join(f"{kind} not with this {', '.join(names)}" for kind, names in wrong.items())
    raise UserError(f"The hub has no layout for this llama: {why}. Change these sizes, or leave model_type None.")
  config = entries((*KEYS, *SIZES), full(sizes))
  config |= {"model_type": kind, "architectures": [_CLASSES[kind] + _ENDINGS[sizes["head"]]]}
  config |= {"pad_token_id": sizes["pad"], **rope_entries(sizes)}
  window = sizes["window"] if "local" in pattern else None
  if kind == "llama":
    config |= {"mlp_bias": sizes["mlp_bias"]}
  if kind in ("llama", "qwen3"):
    config |= {"attention_bias": sizes["attention_bias"]}
  if kind == "mistral":
    config |= {"sliding_window": window}
  if kind in ("qwen2", "qwen3"):
    config |= {"sliding_window": window, "use_sliding_window": window is not None}
    config |= {"layer_types": layer_types(pattern, sizes["depth"])}
  return config | ({} if sizes["num_classes"] is None else named_labels(sizes["num_classes"]))


def _misfits(kind, sizes, pattern):
  """The names of sizes that the reference's class of this model_type cannot have."""
  bias = sizes["attention_bias"]
  out = bias if sizes["out_bias"] is None else sizes["out_bias"]
  fits = {
    "qk_norm": sizes["qk_norm"] == (kind == "qwen3"),
    "mlp_bias": kind == "llama" or not sizes["mlp_bias"],
    "attention_bias": bias == (kind == "qwen2" or out) and not (out and kind in ("mistral", "qwen2")),
    "pattern": {"llama": "local" not in pattern, "mistral": len(set(pattern)) == 1}.get(kind, True),
  }
  return [name for name, fit in fits.items() if not fit]


def full(sizes):
  """The sizes with defaults that follow from others."""
  return {
    **sizes,
    "num_kv_heads": sizes["num_kv_heads"] or sizes["num_heads"],
    "head_dim": sizes["head_dim"] or sizes["dim"] // sizes["num_heads"],
  }


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  mistral = config(sizes)["model_type"] == "mistral"
  p = {None: "", "question_answering": PREFIX[0] if mistral else PREFIX[1]}.get(sizes["head"], PREFIX[0])
  rules = []
  for i in range(sizes["depth"]):
    ours, theirs = f"stack/layer_{i}", f"{p}layers.{i}"
    rules += self_attention(f"{ours}/self_attention", f"{theirs}.self_attn", sizes)
    rules += mlp(f"{ours}/feed_forward", *(f"{theirs}.mlp.{name}_proj" for name in ("up", "down", "gate")),
                 bias=sizes["mlp_bias"])  # fmt: skip
    rules += norm(f"{ours}/attention_norm", f"{theirs}.input_layernorm", bias=False)
    rules += norm(f"{ours}/mlp_norm", f"{theirs}.post_attention_layernorm", bias=False)
  rules += embedding("embed", f"{p}embed_tokens") + norm("norm", f"{p}norm", bias=False)
  return rules + head_rules(sizes)


def self_attention(ours, theirs, sizes):
  """The projections of an attention, and the norms of its heads."""
  bias = sizes["attention_bias"]
  out = bias if sizes["out_bias"] is None else sizes["out_bias"]
  rules = heads_out(f"{ours}/out", f"{theirs}.o_proj", bias=out)
  for name in ("query", "key", "value"):
    rules += heads(f"{ours}/{name}", f"{theirs}.{name[0]}_proj", bias=bias)
    if sizes["qk_norm"] and name != "value":
      rules += norm(f"{ours}/{name}_norm", f"{theirs}.{name[0]}_norm", bias=False)
  return rules
