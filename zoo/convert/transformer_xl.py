"""Transformer-XL in the hub's layout: https://huggingface.co/transfo-xl/transfo-xl-wt103."""

from zoo.convert.rules.layouts import HEADS as KERNEL
from zoo.convert.rules.layouts import LINEAR, SAME, Rule, heads, heads_out, linear, mlp, norm
from zoo.convert.rules.options import Key, Options, entries, named_labels

MODEL_TYPES = ("transfo-xl",)
HEADS = {
  "lm": ("TransfoXLLMHeadModel",),
  "classify": ("TransfoXLForSequenceClassification",),
  None: ("TransfoXLModel",),
}
PREFIX = "transformer."
# The output layer is the embedding, cluster by cluster, and so are the projections that it does not have of its own.
MOST = 16  # clusters
TIED = {
  **{f"crit.out_layers.{i}.weight": f"{PREFIX}word_emb.emb_layers.{i}.weight" for i in range(MOST)},
  **{f"crit.out_projs.{i}": f"{PREFIX}word_emb.emb_projs.{i}" for i in range(MOST)},
}
# Relative distances, which are computed.
IGNORED = (r"(transformer\.)?pos_emb\.inv_freq",)

KEYS = (
  Key("vocab_size", "vocab_size", 267735),
  Key("d_model", "dim", 1024),
  Key("n_layer", "depth", 18),
  Key("n_head", "num_heads", 16),
  Key("d_head", "head_dim", 64),
  Key("d_inner", "mlp_dim", 4096),
  Key("mem_len", "memory_length", 1600),
  Key("same_length", "same_length", True),
  Key("cutoffs", "cutoffs", [20000, 40000, 200000]),
  Key("d_embed", "embed_dim", 1024),
  Key("div_val", "narrowing", 4),
  Key("dropout", "dropout", 0.1),
  Key("dropatt", "attention_dropout", 0.0),
  Key("layer_norm_epsilon", "epsilon", 1e-5),
)


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  sizes = options.sizes(KEYS) | {"head": head, "pad": options.nullable("pad_token_id")}
  clusters = len(sizes["cutoffs"]) + 1
  shared = options.take("proj_share_all_but_first", True)
  tied = options.take("tie_projs", [False] + [bool(shared)] * (clusters - 1), list)
  clamp = options.take("clamp_len", 1000)
  sizes["own_projections"] = [not each for each in tied]
  sizes["clamp"] = clamp if clamp > 0 else None
  sizes["num_classes"] = options.num_labels() if head == "classify" else None
  if sizes["narrowing"] == 1 and sizes["cutoffs"]:  # A single projection would be tied to those of all clusters.
    options.must_be("d_embed", sizes["dim"])
  for name, value in {"pre_lnorm": False, "attn_type": 0, "untie_r": True, "tie_word_embeddings": True}.items():
    options.must_be(name, value)
  # Training and initialisation; the reference always has the same kind of softmax.
  options.ignore("adaptive", "sample_softmax", "tie_weight", "trainer_compatible", "init", "init_range", "init_std")
  options.ignore("proj_init_std", "tgt_len", "ext_len")
  return sizes


def config(sizes):
  """-> config.json"""
  filled = {**sizes, "mlp_dim": sizes["mlp_dim"] or 4 * sizes["dim"], "embed_dim": sizes["embed_dim"] or sizes["dim"]}
  filled["head_dim"] = sizes["head_dim"] or sizes["dim"] // sizes["num_heads"]
  filled["cutoffs"] = list(sizes["cutoffs"])
  own = list(sizes["own_projections"]) or [False] * (len(sizes["cutoffs"]) + 1)
  labels = {} if sizes["num_classes"] is None else named_labels(sizes["num_classes"])
  return {
    "model_type": "transfo-xl",
    "pad_token_id": sizes["pad"],
    **entries(KEYS, filled),
    "clamp_len": sizes["clamp"] or -1,
    "tie_projs": [not each for each in own],
    "proj_share_all_but_first": not any(own[1:]),
    **labels,
  }


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  head, rules = sizes["head"], []
  p = "" if head is None else PREFIX
  bounds = [0, *sizes["cutoffs"], sizes["vocab_size"]]
  clusters = list(zip(bounds, bounds[1:]))
  wide = sizes["embed_dim"] or sizes["dim"]
  narrowed = sizes["narrowing"] > 1
  for i in range(len(clusters) if narrowed else 1):
    rules.append(Rule(f"embed/embedding_{i}", f"{p}word_emb.emb_layers.{i}.weight"))
    if narrowed or wide != sizes["dim"]:
      rules.append(Rule(f"embed/projection_{i}", f"{p}word_emb.emb_projs.{i}", LINEAR))
  for i in range(sizes["depth"]):
    ours, theirs = f"stack/layer_{i}", f"{p}layers.{i}"
    rules += attention(f"{ours}/self_attention", f"{theirs}.dec_attn", sizes)
    rules += norm(f"{ours}/attention_norm", f"{theirs}.dec_attn.layer_norm")
    rules += mlp(f"{ours}/feed_forward", f"{theirs}.pos_ff.CoreNet.0", f"{theirs}.pos_ff.CoreNet.3")
    rules += norm(f"{ours}/mlp_norm", f"{theirs}.pos_ff.layer_norm")
  if head == "lm":
    own = sizes["own_projections"] or [False] * len(clusters)
    for i, (first, _) in enumerate(clusters):
      name, part = (f"crit.out_layers.{i}.bias", None) if narrowed else (
        "crit.out_layers.0.bias", (0, first, sizes["vocab_size"])
      )  # fmt: skip
      rules.append(Rule(f"logits/bias_{i}", name, SAME, stretch=part))
      if own[i] and (narrowed or wide != sizes["dim"]):
        rules.append(Rule(f"logits/projection_{i}", f"crit.out_projs.{i}", LINEAR))
    if len(clusters) > 1:
      rules += [Rule("logits/clusters", "crit.cluster_weight"), Rule("logits/cluster_bias", "crit.cluster_bias")]
  if head == "classify":
    rules += linear("classify", "score", bias=False)
  return rules


def attention(ours, theirs, sizes):
  """Rules of an attention, with query, key and value fused in `qkv_net`."""
  width = sizes["num_heads"] * (sizes["head_dim"] or sizes["dim"] // sizes["num_heads"])
  rules = [
    Rule(f"{ours}/{name}/kernel", f"{theirs}.qkv_net.weight", KERNEL, stretch=(0, i * width, 3 * width))
    for i, name in enumerate(("query", "key", "value"))
  ]
  rules += heads(f"{ours}/distance", f"{theirs}.r_net", bias=False)
  rules += heads_out(f"{ours}/out", f"{theirs}.o_net", bias=False)
  return [
    *rules, Rule(f"{ours}/content_bias", f"{theirs}.r_w_bias"), Rule(f"{ours}/position_bias", f"{theirs}.r_r_bias")
  ]  # fmt: skip
