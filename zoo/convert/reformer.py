"""Reformer in the hub's layout: https://huggingface.co/google/reformer-crime-and-punishment."""

from zoo.convert.rules.layouts import Layout, Rule, embedding, heads, heads_out, linear, mlp, norm
from zoo.convert.rules.options import ACTIVATIONS, Key, Options, entries, named_labels

MODEL_TYPES = ("reformer",)
HEADS = {
  "lm": ("ReformerModelWithLMHead",),
  "mlm": ("ReformerForMaskedLM",),
  "classify": ("ReformerForSequenceClassification",),
  "question_answering": ("ReformerForQuestionAnswering",),
  None: ("ReformerModel",),
}
PREFIX = "reformer."
TIED = {"lm_head.decoder.bias": "lm_head.bias"}
# Constants of the attention in older files.
IGNORED = (r".*\.(self_)?mask_value_float(16|32)",)

KEYS = (
  Key("vocab_size", "vocab_size", 320),
  Key("max_position_embeddings", "max_length", 4096),
  Key("hidden_size", "dim", 256),
  Key("num_attention_heads", "num_heads", 12),
  Key("attention_head_size", "head_dim", 64),
  Key("feed_forward_size", "mlp_dim", 512),
  Key("attn_layers", "pattern", ["local", "lsh", "local", "lsh", "local", "lsh"]),
  Key("local_attn_chunk_length", "local_chunk", 64),
  Key("local_num_chunks_before", "local_before", 1),
  Key("local_num_chunks_after", "local_after", 0),
  Key("local_attention_probs_dropout_prob", "local_dropout", 0.05),
  Key("lsh_attn_chunk_length", "lsh_chunk", 64),
  Key("lsh_num_chunks_before", "lsh_before", 1),
  Key("lsh_num_chunks_after", "lsh_after", 0),
  Key("lsh_attention_probs_dropout_prob", "lsh_dropout", 0.0),
  Key("num_hashes", "rounds", 1),
  Key("is_decoder", "causal", False),
  Key("hidden_act", "activation", "relu", ACTIVATIONS),
  Key("layer_norm_eps", "epsilon", 1e-12),
  Key("hidden_dropout_prob", "dropout", 0.05),
)
ROWS = Layout(((0,), (), (1,)))  # [height, dim] <-> [height, 1, dim]
COLUMNS = Layout(((), (0,), (1,)))  # [width, dim] <-> [1, width, dim]


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  sizes = options.sizes(KEYS) | {"head": head}
  sizes["depth"] = len(sizes["pattern"])
  options.must_be("num_hidden_layers", sizes["depth"], None)
  sizes["hash_seed"] = options.nullable("hash_seed")
  sizes["buckets"] = options.nullable("num_buckets", kind=(int, list))
  sizes["mlp_chunk"] = options.take("chunk_size_feed_forward", 0) or None
  shape, dims = options.take("axial_pos_shape", [64, 64], list), options.take("axial_pos_embds_dim", [64, 192], list)
  axial = options.take("axial_pos_embds", True)
  sizes["axial_shape"], sizes["axial_dims"] = (shape, dims) if axial else (None, None)
  if axial and len(shape) == 2 and min(shape) > 0:  # The reference's limit is the lower of the two.
    sizes["max_length"] = min(sizes["max_length"], shape[0] * shape[1])
  sizes["num_classes"] = options.num_labels() if head == "classify" else None
  options.must_be("tie_word_embeddings", False)
  sizes["output_bias"] = adds_bias(options, tensors)
  # Initialisation and chance; the logits' chunks take memory and change nothing.
  options.ignore("axial_norm_std", "chunk_size_lm_head", "classifier_dropout")
  return sizes


def adds_bias(options, tensors):
  """Whether the reference that wrote these files adds the bias of its logits: 5.0 to 5.23 save it, and do not."""
  version = str(options.take("transformers_version", "4")).partition(".")[0]
  return "lm_head.decoder.bias" in tensors or not version.isdigit() or int(version) < 5


def config(sizes):
  """-> config.json"""
  labels = {} if sizes["num_classes"] is None else named_labels(sizes["num_classes"])
  layers = [sizes["pattern"][i % len(sizes["pattern"])] for i in range(sizes["depth"])]
  causal = sizes["head"] == "lm" if sizes["causal"] is None else sizes["causal"]
  filled = {**sizes, "pattern": layers, "causal": causal, "mlp_dim": sizes["mlp_dim"] or 4 * sizes["dim"]}
  filled["head_dim"] = sizes["head_dim"] or sizes["dim"] // sizes["num_heads"]
  grid = {"axial_pos_shape": sizes["axial_shape"], "axial_pos_embds_dim": sizes["axial_dims"]}
  axial = sizes["axial_shape"] is not None
  buckets = sizes["buckets"]
  return {
    "model_type": "reformer",
    **entries(KEYS, filled),
    "num_hidden_layers": sizes["depth"],
    "num_buckets": buckets if buckets is None or isinstance(buckets, int) else list(buckets),
    "hash_seed": sizes["hash_seed"],
    "chunk_size_feed_forward": sizes["mlp_chunk"] or 0,
    "axial_pos_embds": axial,
    **{name: list(each) for name, each in grid.items() if each is not None},
    "tie_word_embeddings": False,
    "transformers_version": "4.57.1" if sizes["output_bias"] else "5.23.0",
    **labels,
  }


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  head = sizes["head"]
  p = "" if head is None else PREFIX
  positions = f"{p}embeddings.position_embeddings"
  rules = embedding("embed", f"{p}embeddings.word_embeddings")
  if sizes["axial_shape"] is None:
    rules += embedding("positions", f"{positions}.embedding")
  else:
    rules.append(Rule("positions/rows", f"{positions}.weights.0", ROWS))
    rules.append(Rule("positions/columns", f"{positions}.weights.1", COLUMNS))
  for i in range(sizes["depth"]):
    ours, theirs = f"stack/layer_{i}", f"{p}encoder.layers.{i}"
    attention, other = f"{ours}/self_attention", f"{theirs}.attention"
    local = sizes["pattern"][i % len(sizes["pattern"])] == "local"
    names = {"query": "query", "key": "key", "value": "value"} if local else {"query": "query_key", "value": "value"}
    for name, their_name in names.items():
      rules += heads(f"{attention}/{name}", f"{other}.self_attention.{their_name}", bias=False)
    rules += heads_out(f"{attention}/out", f"{other}.output.dense", bias=False)
    rules += norm(f"{ours}/attention_norm", f"{other}.layer_norm")
    feed = f"{theirs}.feed_forward"
    rules += mlp(f"{ours}/feed_forward", f"{feed}.dense.dense", f"{feed}.output.dense")
    rules += norm(f"{ours}/mlp_norm", f"{feed}.layer_norm")
  rules += norm("norm", f"{p}encoder.layer_norm")
  if head in ("lm", "mlm"):
    ours = "logits" if head == "lm" else "mlm"
    rules += [*linear(ours, "lm_head.decoder", bias=False), Rule(f"{ours}/bias", "lm_head.bias")]
  if head == "classify":
    rules += linear("classify/dense", "classifier.dense") + linear("classify/out", "classifier.out_proj")
  if head == "question_answering":
    rules += linear("answer", "qa_outputs")
  return rules
