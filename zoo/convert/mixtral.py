"""Mixtral and Qwen 3 MoE in the hub's layout: https://huggingface.co/mistralai/Mixtral-8x7B-v0.1."""

from zoo.convert.llama import full, self_attention
from zoo.convert.rules.decoders import head_rules, heads_and_pad, rope, rope_entries, shortest_turn
from zoo.convert.rules.layouts import LINEAR, Rule, embedding, linear, mlp, norm
from zoo.convert.rules.options import ACTIVATIONS, Key, Options, entries, named_labels
from zoo.errors import UserError

_CLASSES = {"mixtral": "Mixtral", "qwen3_moe": "Qwen3Moe"}
_ENDINGS = {
  "lm": "ForCausalLM",
  "classify": "ForSequenceClassification",
  "classify_tokens": "ForTokenClassification",
  "question_answering": "ForQuestionAnswering",
  None: "Model",
}
MODEL_TYPES = tuple(_CLASSES)
HEADS = {head: tuple(name + ending for name in _CLASSES.values()) for head, ending in _ENDINGS.items()}
PREFIX = ("model.", "transformer.")  # The second with a question answering head of Qwen.
TIED = {"lm_head.weight": "model.embed_tokens.weight"}
IGNORED = (r"(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)  # Buffers saved by old versions.

KEYS = (
  Key("num_attention_heads", "num_heads", 32),
  Key("hidden_act", "activation", "silu", ACTIVATIONS),
  Key("attention_dropout", "dropout", 0.0),
  Key("tie_word_embeddings", "tied", False),
  Key("head_dim", "head_dim"),
)
# Defaults, and the name of the number of experts, depend on model_type.
SIZES = {
  Key("vocab_size", "vocab_size"): dict(mixtral=32000, qwen3_moe=151936),
  Key("hidden_size", "dim"): dict(mixtral=4096, qwen3_moe=2048),
  Key("num_hidden_layers", "depth"): dict(mixtral=32, qwen3_moe=24),
  Key("num_key_value_heads", "num_kv_heads"): dict(mixtral=8, qwen3_moe=4),
  Key("max_position_embeddings", "max_length"): dict(mixtral=131072, qwen3_moe=32768),
  Key("rms_norm_eps", "epsilon"): dict(mixtral=1e-5, qwen3_moe=1e-6),
  Key("num_experts_per_tok", "top_k"): dict(mixtral=2, qwen3_moe=8),
}
EXPERTS = {
  "mixtral": (
    Key("intermediate_size", "mlp_dim", 14336),
    Key("router_jitter_noise", "jitter", 0.0),
  ),
  "qwen3_moe": (
    Key("moe_intermediate_size", "mlp_dim", 768),
    Key("intermediate_size", "dense_dim", 6144),
    Key("norm_topk_prob", "normalize", False),
    Key("attention_bias", "attention_bias", False),
  ),
}


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  kind = options.take("model_type", "mixtral")
  sizes = options.sizes((*KEYS, *EXPERTS[kind]))
  sizes |= options.sizes(key._replace(default=of[kind]) for key, of in SIZES.items())
  # Its name differs between versions of the reference.
  num_experts = options.take("num_experts", {"mixtral": 8, "qwen3_moe": 128}[kind])
  sizes["num_experts"] = options.take("num_local_experts", num_experts)
  sizes |= heads_and_pad(options, sizes)
  sizes |= rope(options, sizes["max_length"], 1_000_000.0 if kind == "mixtral" else 10_000.0)
  sizes |= {"head": head, "qk_norm": kind == "qwen3_moe"}
  sizes["num_classes"] = options.num_labels() if head in ("classify", "classify_tokens") else None
  sizes["window"] = options.nullable("sliding_window", None if kind == "mixtral" else 4096)
  if kind == "qwen3_moe":
    sizes["window"] = sizes["window"] if options.take("use_sliding_window", False) else None
    step, dense = options.take("decoder_sparse_step", 1), options.take("mlp_only_layers", [])
    if step < 1:
      raise options.refusal("decoder_sparse_step", step, ("1 or more",))
    sparse = [i not in dense and (i + 1) % step == 0 for i in range(sizes["depth"])]
    sizes["pattern"] = shortest_turn(["sparse" if is_sparse else "dense" for is_sparse in sparse])
  # Training-only entries; an old name of the window.
  options.ignore("output_router_logits", "router_aux_loss_coef", "classifier_dropout", "max_window_layers")
  return sizes


def config(sizes):
  """-> config.json"""
  kind = "qwen3_moe" if sizes["qk_norm"] else "mixtral"
  pattern = sizes["pattern"] or ["sparse"]
  fits = {
    "pattern": kind == "qwen3_moe" or "dense" not in pattern,
    "normalize": kind == "qwen3_moe" or sizes["normalize"],
    "attention_bias": kind == "qwen3_moe" or not sizes["attention_bias"],
    "jitter": kind == "mixtral" or not sizes["jitter"],
  }
  wrong = [name for name, fit in fits.items() if not fit]
  if wrong:
    raise UserError(f"The hub's {kind} cannot have this {', '.join(wrong)}. Change these sizes.")
  dense_dim = sizes["mlp_dim"] if sizes["dense_dim"] is None else sizes["dense_dim"]
  config = entries((*KEYS, *SIZES, *EXPERTS[kind]), {**full(sizes), "dense_dim": dense_dim})
  config |= {"model_type": kind, "architectures": [_CLASSES[kind] + _ENDINGS[sizes["head"]]]}
  config |= {"num_local_experts" if kind == "mixtral" else "num_experts": sizes["num_experts"]}
  config |= {"pad_token_id": sizes["pad"], "sliding_window": sizes["window"], **rope_entries(sizes)}
  if kind == "qwen3_moe":
    dense = [i for i in range(sizes["depth"]) if pattern[i % len(pattern)] == "dense"]
    config |= {"use_sliding_window": sizes["window"] is not None, "decoder_sparse_step": 1, "mlp_only_layers": dense}
  return config | ({} if sizes["num_classes"] is None else named_labels(sizes["num_classes"]))


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  qwen, pattern, rules = sizes["qk_norm"], sizes["pattern"] or ["sparse"], []
  p = {None: "", "question_answering": PREFIX[qwen]}.get(sizes["head"], PREFIX[0])
  for i in range(sizes["depth"]):
    ours, theirs = f"stack/layer_{i}", f"{p}layers.{i}"
    rules += self_attention(f"{ours}/self_attention", f"{theirs}.self_attn", {**sizes, "out_bias": None})
    network = f"{theirs}.mlp" if qwen else f"{theirs}.block_sparse_moe"
    names = dict(gate="gate_proj", up="up_proj", down="down_proj") if qwen else dict(gate="w1", up="w3", down="w2")
    if pattern[i % len(pattern)] == "dense":
      rules += mlp(f"{ours}/feed_forward", *(f"{network}.{names[part]}" for part in ("up", "down", "gate")), bias=False)
    else:
      rules += linear(f"{ours}/feed_forward/router", f"{network}.gate", bias=False)
      rules += [
        Rule(f"{ours}/feed_forward/experts/{part}/kernel", f"{network}.experts.{e}.{name}.weight", LINEAR, index=e)
        for part, name in names.items()
        for e in range(sizes["num_experts"])
      ]
    rules += norm(f"{ours}/attention_norm", f"{theirs}.input_layernorm", bias=False)
    rules += norm(f"{ours}/mlp_norm", f"{theirs}.post_attention_layernorm", bias=False)
  rules += embedding("embed", f"{p}embed_tokens") + norm("norm", f"{p}norm", bias=False)
  return rules + head_rules(sizes)
