"""XLNet in the hub's layout: https://huggingface.co/xlnet/xlnet-base-cased."""

from zoo.convert.rules.layouts import Layout, Rule, embedding, linear, mlp, norm
from zoo.convert.rules.options import ACTIVATIONS, Key, Options, entries, named_labels

MODEL_TYPES = ("xlnet",)
HEADS = {
  "mlm": ("XLNetLMHeadModel",),
  "classify": ("XLNetForSequenceClassification",),
  "multiple_choice": ("XLNetForMultipleChoice",),
  "classify_tokens": ("XLNetForTokenClassification",),
  "question_answering": ("XLNetForQuestionAnsweringSimple",),
  None: ("XLNetModel",),
}
PREFIX = "transformer."
TIED = {"lm_loss.weight": "transformer.word_embedding.weight"}

KEYS = (
  Key("vocab_size", "vocab_size", 32000),
  Key("d_model", "dim", 1024),
  Key("n_layer", "depth", 24),
  Key("n_head", "num_heads", 16),
  Key("d_inner", "mlp_dim", 4096),
  Key("ff_activation", "activation", "gelu", ACTIVATIONS),
  Key("layer_norm_eps", "epsilon", 1e-12),
  Key("dropout", "dropout", 0.1),
)
SUMMARY = {"summary_type": "last", "summary_use_proj": True, "summary_activation": "tanh"}
OUT = Layout(order=(2, 0, 1))  # [heads, head_dim, dim] <-> [dim, heads, head_dim]
VECTOR = Layout(((), (), (0,)))  # [dim] <-> [1, 1, dim]


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  sizes = options.sizes(KEYS) | {"head": head}
  sizes["memory_length"] = options.nullable("mem_len", 512) or 0
  clamp = options.take("clamp_len", -1)
  sizes["clamp"] = clamp if clamp > 0 else None
  sizes["num_classes"] = options.num_labels() if head in ("classify", "classify_tokens") else None
  options.must_be("attn_type", "bi")
  options.must_be("bi_data", False)
  options.must_be("tie_word_embeddings", True)
  options.must_be("d_head", sizes["dim"] // max(sizes["num_heads"], 1), None)
  options.must_be("reuse_len", None, 0)
  for name, value in SUMMARY.items() if head in ("classify", "multiple_choice") else ():
    options.must_be(name, value)
  # Entries of other heads and of one direction alone; whether a call returns its memory; training-only rates.
  options.ignore(*SUMMARY, "summary_last_dropout", "start_n_top", "end_n_top", "same_length", "untie_r")
  options.ignore("use_mems_eval", "use_mems_train")
  return sizes


def config(sizes):
  """-> config.json"""
  labels = {} if sizes["num_classes"] is None else named_labels(sizes["num_classes"])
  return {
    "model_type": "xlnet",
    **entries(KEYS, {**sizes, "mlp_dim": sizes["mlp_dim"] or 4 * sizes["dim"]}),
    "mem_len": sizes["memory_length"],
    "clamp_len": sizes["clamp"] or -1,
    "d_head": sizes["dim"] // sizes["num_heads"],
    **labels,
  }


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  head = sizes["head"]
  p = "" if head is None else PREFIX
  rules = embedding("embed", f"{p}word_embedding") + [Rule("unknown", f"{p}mask_emb", VECTOR)]
  for i in range(sizes["depth"]):
    ours, theirs = f"stack/layer_{i}", f"{p}layer.{i}"
    attention, other = f"{ours}/self_attention", f"{theirs}.rel_attn"
    names = {"query": "q", "key": "k", "value": "v", "distance": "r"}
    rules += [Rule(f"{attention}/{name}/kernel", f"{other}.{short}") for name, short in names.items()]
    rules.append(Rule(f"{attention}/out/kernel", f"{other}.o", OUT))
    biases = {"content": "r_w_bias", "position": "r_r_bias", "segment": "r_s_bias"}
    rules += [Rule(f"{attention}/{name}_bias", f"{other}.{short}") for name, short in biases.items()]
    rules.append(Rule(f"{attention}/segments", f"{other}.seg_embed"))
    rules += norm(f"{ours}/attention_norm", f"{other}.layer_norm")
    rules += mlp(f"{ours}/feed_forward", f"{theirs}.ff.layer_1", f"{theirs}.ff.layer_2")
    rules += norm(f"{ours}/mlp_norm", f"{theirs}.ff.layer_norm")
  if head == "mlm":
    rules.append(Rule("mlm/bias", "lm_loss.bias"))
  if head in ("classify", "multiple_choice"):
    rules += linear("summary", "sequence_summary.summary")
  if head == "classify":
    rules += linear("classify", "logits_proj")
  if head == "multiple_choice":
    rules += linear("choose", "logits_proj")
  if head == "classify_tokens":
    rules += linear("classify_tokens", "classifier")
  if head == "question_answering":
    rules += linear("answer", "qa_outputs")
  return rules
