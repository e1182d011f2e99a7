"""BART in the hub's layout: https://huggingface.co/facebook/bart-large. Marian and Whisper share its layer names."""

from zoo.convert.rules.layouts import Layout, Rule, attention, embedding, linear, mlp, norm
from zoo.convert.rules.options import ACTIVATIONS, Key, Options, entries, named_labels

MODEL_TYPES = ("bart",)
HEADS = {
  "lm": ("BartForConditionalGeneration",),
  None: ("BartModel",),
  "classify": ("BartForSequenceClassification",),
  "question_answering": ("BartForQuestionAnswering",),
}
PREFIX = "model."
TIED = {
  "model.encoder.embed_tokens.weight": "model.shared.weight",
  "model.decoder.embed_tokens.weight": "model.shared.weight",
  "lm_head.weight": "model.shared.weight",
}
SPARE = ("final_logits_bias",)
IGNORED = (r"(model\.)?(encoder|decoder)\.version",)

# Old configs have one more name of an entry.
ALIASES = {"hidden_size": "dim", "num_hidden_layers": "depth", "num_attention_heads": "num_heads"}


def tower_keys(dim, depth, num_heads, mlp_dim):
  """Config entries of both towers of BART, Marian and Whisper, with their defaults."""
  return (
    Key("d_model", "dim", dim),
    Key("encoder_layers", "depth", depth),
    Key("encoder_attention_heads", "num_heads", num_heads),
    Key("encoder_ffn_dim", "mlp_dim", mlp_dim),
    Key("decoder_layers", "decoder_depth", depth),
    Key("decoder_attention_heads", "decoder_heads", num_heads),
    Key("decoder_ffn_dim", "decoder_mlp_dim", mlp_dim),
    Key("activation_function", "activation", "gelu", ACTIVATIONS),
  )


KEYS = (
  *tower_keys(1024, 12, 16, 4096),
  Key("vocab_size", "vocab_size", 50265),
  Key("max_position_embeddings", "max_length", 1024),
  Key("scale_embedding", "scaled_embedding", False),
  Key("dropout", "dropout", 0.1),
  Key("decoder_start_token_id", "start_token", 2),
  Key("eos_token_id", "eos", 2),
)


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  sizes = tower_sizes(options, KEYS)
  sizes |= {"pad": options.nullable("pad_token_id", 1), "logits_bias": has_bias(tensors)}
  sizes |= {"head": head, "num_classes": options.num_labels(3) if head == "classify" else None}
  options.must_be("normalize_embedding", True)
  options.must_be("static_position_embeddings", False)
  return sizes


def tower_sizes(options, keys):
  """Sizes from a table that includes `tower_keys`."""
  sizes = options.sizes(keys)
  for alias, ours in ALIASES.items():
    options.must_be(alias, sizes[ours])
  options.must_be("is_decoder", False)
  options.must_be("tie_word_embeddings", True)
  # Options of other fairseq models, which old versions wrote for all models.
  options.must_be("normalize_before", False)
  options.must_be("add_final_layer_norm", False)
  # Training-only rates; entries implied by final_logits_bias; generation settings.
  options.ignore("attention_dropout", "activation_dropout", "encoder_layerdrop", "decoder_layerdrop", "init_std")
  options.ignore("classifier_dropout", "classif_dropout", "add_bias_logits", "extra_pos_embeddings")
  options.ignore("force_bos_token_to_be_generated")
  return sizes


def has_bias(tensors):
  """Whether the logits have a nonzero bias; BART's is all zeros."""
  bias = tensors.get("final_logits_bias")
  return bias is not None and bool(bias.any())


def config(sizes):
  """-> config.json"""
  labels = {} if sizes["num_classes"] is None else named_labels(sizes["num_classes"])
  ends = {"forced_eos_token_id": sizes["eos"]}  # Else the reference ends what is too long with its class's default, 2.
  return {"model_type": "bart", "pad_token_id": sizes["pad"], **ends, **tower_entries(KEYS, sizes), **labels}


def tower_entries(keys, sizes):
  """Inverse of `tower_sizes`: config entries from our sizes."""
  full_sizes = {**sizes, "mlp_dim": sizes["mlp_dim"] or 4 * sizes["dim"]}
  for decoder_name, encoder_name in (
    ("decoder_depth", "depth"),
    ("decoder_heads", "num_heads"),
    ("decoder_mlp_dim", "mlp_dim"),
  ):
    full_sizes[decoder_name] = (
      full_sizes[encoder_name] if full_sizes[decoder_name] is None else full_sizes[decoder_name]
    )
  return {
    "is_encoder_decoder": True,
    "tie_word_embeddings": True,
    "attention_dropout": sizes["dropout"],
    **entries(keys, full_sizes),
  }


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  head = sizes["head"]
  p = "" if head is None else PREFIX
  rules = embedding("embed", f"{p}shared")
  for tower in ("encoder", "decoder"):
    rules += layers(sizes, tower, p)
    rules += embedding(f"{tower}/positions", f"{p}{tower}.embed_positions")
    rules += norm(f"{tower}/first_norm", f"{p}{tower}.layernorm_embedding")
  if head == "classify":
    rules += linear("classify/dense", "classification_head.dense")
    rules += linear("classify/out", "classification_head.out_proj")
  if head == "question_answering":
    rules += linear("answer", "qa_outputs")
  return rules + output(sizes)


def output(sizes):
  """The rule of the logits' bias."""
  rules = [Rule("logits/bias", "final_logits_bias", Layout(((), (0,))))]
  return rules if sizes["head"] == "lm" and sizes["logits_bias"] else []


def layers(sizes, tower, p, *, key_bias=True):
  """Rules of a tower's layers, with the prefix `p`."""
  depth = sizes["depth"] if tower == "encoder" or sizes["decoder_depth"] is None else sizes["decoder_depth"]
  parts = [("self_attention", "self_attn", "attention_norm")]
  parts += [("cross_attention", "encoder_attn", "cross_norm")] * (tower == "decoder")
  rules = []
  for i in range(depth):
    ours, theirs = f"{tower}/stack/layer_{i}", f"{p}{tower}.layers.{i}"
    for part, name, its_norm in parts:
      to = [f"{theirs}.{name}.{x}_proj" for x in ("q", "k", "v", "out")]
      into = attention(f"{ours}/{part}", *to)
      rules += [rule for rule in into if key_bias or rule.ours != f"{ours}/{part}/key/bias"]
      rules += norm(f"{ours}/{its_norm}", f"{theirs}.{name}_layer_norm")
    rules += mlp(f"{ours}/feed_forward", f"{theirs}.fc1", f"{theirs}.fc2")
    rules += norm(f"{ours}/mlp_norm", f"{theirs}.final_layer_norm")
  return rules
