"""GPT-2 in the hub's layout: https://huggingface.co/openai-community/gpt2. Its `Conv1D` keeps kernels as [in, out]."""

from zoo.convert.rules.layouts import Layout, Rule, embedding, linear, norm
from zoo.convert.rules.options import ACTIVATIONS, Key, Options, entries, named_labels

MODEL_TYPES = ("gpt2",)
HEADS = {
  "lm": ("GPT2LMHeadModel",),
  "classify": ("GPT2ForSequenceClassification",),
  "classify_tokens": ("GPT2ForTokenClassification",),
  "question_answering": ("GPT2ForQuestionAnswering",),
  None: ("GPT2Model",),
}
PREFIX = "transformer."
TIED = {"lm_head.weight": "transformer.wte.weight"}
IGNORED = (r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",)  # Masks saved as buffers by old versions.

KEYS = (
  Key("vocab_size", "vocab_size", 50257),
  Key("n_positions", "max_length", 1024),
  Key("n_embd", "dim", 768),
  Key("n_layer", "depth", 12),
  Key("n_head", "num_heads", 12),
  Key("activation_function", "activation", "gelu_new", ACTIVATIONS),
  Key("layer_norm_epsilon", "epsilon", 1e-5),
  Key("resid_pdrop", "dropout", 0.1),
)


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  sizes = options.sizes(KEYS)
  sizes["mlp_dim"] = options.take("n_inner", 4 * sizes["dim"])
  sizes |= {"head": head, "pad": options.nullable("pad_token_id")}
  sizes["num_classes"] = options.num_labels() if head in ("classify", "classify_tokens") else None
  options.must_be("scale_attn_weights", True)
  options.must_be("scale_attn_by_inverse_layer_idx", False)
  options.must_be("tie_word_embeddings", True)
  options.must_be("add_cross_attention", False)
  # Order of computation; an old name of n_positions; training-only rates; a head that is not converted.
  options.ignore("reorder_and_upcast_attn", "n_ctx", "attn_pdrop", "embd_pdrop")
  options.ignore("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels")
  options.ignore("summary_first_dropout")
  return sizes


def config(sizes):
  """-> config.json"""
  extra = {
    "n_inner": sizes["mlp_dim"] or 4 * sizes["dim"],
    "embd_pdrop": sizes["dropout"],
    "attn_pdrop": sizes["dropout"],
  }
  extra |= {} if sizes["pad"] is None else {"pad_token_id": sizes["pad"]}
  extra |= {} if sizes["num_classes"] is None else named_labels(sizes["num_classes"])
  return {"model_type": "gpt2", "tie_word_embeddings": True, **entries(KEYS, sizes), **extra}


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  rules, p = [], PREFIX if sizes["head"] else ""
  for i in range(sizes["depth"]):
    rules += layer(f"stack/layer_{i}", f"{p}h.{i}", sizes["dim"])
  rules += embedding("embed", f"{p}wte") + embedding("positions", f"{p}wpe") + norm("norm", f"{p}ln_f")
  heads = {
    "classify": linear("classify", "score", bias=False),
    "classify_tokens": linear("classify_tokens", "classifier"),
    "question_answering": linear("answer", "qa_outputs"),
  }
  return rules + heads.get(sizes["head"], [])


def cross(ours, layer, dim):
  """Rules of the cross-attention in a decoder's layer; `ours` is its path."""
  theirs = f"{PREFIX}h.{layer}.crossattention"
  rules = norm(f"{ours}/cross_norm", f"{PREFIX}h.{layer}.ln_cross_attn")
  for part, (name, fused) in enumerate({"query": "q_attn", "key": "c_attn", "value": "c_attn"}.items()):
    at, start = f"{ours}/cross_attention/{name}", (part - 1) * dim
    kernel, bias = ((1, start, 2 * dim), (0, start, 2 * dim)) if part else (None, None)
    rules += [Rule(f"{at}/kernel", f"{theirs}.{fused}.weight", Layout(((0,), (1, 2))), stretch=kernel)]
    rules += [Rule(f"{at}/bias", f"{theirs}.{fused}.bias", Layout(((0, 1),)), stretch=bias)]
  out = f"{ours}/cross_attention/out"
  rules += [Rule(f"{out}/kernel", f"{theirs}.c_proj.weight", Layout(((0, 1), (2,))))]
  return [*rules, Rule(f"{out}/bias", f"{theirs}.c_proj.bias")]


def layer(ours, theirs, dim):
  """Rules of one layer, shared with GPT: query, key and value are fused in one matrix."""
  rules, to_heads, from_heads = [], Layout(((0,), (1, 2))), Layout(((0, 1), (2,)))
  for part, name in enumerate(("query", "key", "value")):
    at, fused = f"{ours}/self_attention/{name}", f"{theirs}.attn.c_attn"
    rules += [Rule(f"{at}/kernel", f"{fused}.weight", to_heads, stretch=(1, part * dim, 3 * dim))]
    rules += [Rule(f"{at}/bias", f"{fused}.bias", Layout(((0, 1),)), stretch=(0, part * dim, 3 * dim))]
  rules += [Rule(f"{ours}/self_attention/out/kernel", f"{theirs}.attn.c_proj.weight", from_heads)]
  rules += [Rule(f"{ours}/self_attention/out/bias", f"{theirs}.attn.c_proj.bias")]
  for part, name in (("up", "c_fc"), ("down", "c_proj")):
    rules += [Rule(f"{ours}/feed_forward/{part}/kernel", f"{theirs}.mlp.{name}.weight")]
    rules += [Rule(f"{ours}/feed_forward/{part}/bias", f"{theirs}.mlp.{name}.bias")]
  return rules + norm(f"{ours}/attention_norm", f"{theirs}.ln_1") + norm(f"{ours}/mlp_norm", f"{theirs}.ln_2")
