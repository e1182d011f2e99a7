"""DistilBERT in the hub's layout: https://huggingface.co/distilbert/distilbert-base-uncased."""

from zoo.convert.rules.layouts import Rule, attention, embedding, linear, mlp, norm
from zoo.convert.rules.options import ACTIVATIONS, Key, Options, entries, named_labels

MODEL_TYPES = ("distilbert",)
HEADS = {
  "mlm": ("DistilBertForMaskedLM",),
  None: ("DistilBertModel",),
  "classify": ("DistilBertForSequenceClassification",),
  "classify_tokens": ("DistilBertForTokenClassification",),
  "question_answering": ("DistilBertForQuestionAnswering",),
  "multiple_choice": ("DistilBertForMultipleChoice",),
}
PREFIX = "distilbert."
TIED = {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"}
IGNORED = (r"(distilbert\.)?embeddings\.position_ids",)

KEYS = (
  Key("vocab_size", "vocab_size", 30522),
  Key("max_position_embeddings", "max_length", 512),
  Key("dim", "dim", 768),
  Key("n_layers", "depth", 6),
  Key("n_heads", "num_heads", 12),
  Key("hidden_dim", "mlp_dim", 3072),
  Key("activation", "activation", "gelu", ACTIVATIONS),
  Key("dropout", "dropout", 0.1),
  Key("pad_token_id", "pad", 0),
)


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  sizes = options.sizes(KEYS)
  if options.entries.get("pad_token_id", 0) is None:
    sizes["pad"] = None
  sizes |= {"head": head, "num_classes": options.num_labels() if head in ("classify", "classify_tokens") else None}
  options.must_be("tie_word_embeddings", True)
  # Initialisation of positions; training-only rates.
  options.ignore("sinusoidal_pos_embds", "attention_dropout", "qa_dropout", "seq_classif_dropout")
  return sizes


def config(sizes):
  """-> config.json"""
  sizes = {**sizes, "mlp_dim": sizes["mlp_dim"] or 4 * sizes["dim"]}
  labels = {} if sizes["num_classes"] is None else named_labels(sizes["num_classes"])
  rates = {name: sizes["dropout"] for name in ("attention_dropout", "qa_dropout", "seq_classif_dropout")}
  return {"model_type": "distilbert", "tie_word_embeddings": True, **rates, **entries(KEYS, sizes), **labels}


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  head = sizes["head"]
  p = "" if head is None else PREFIX
  rules = norm("norm", f"{p}embeddings.LayerNorm")
  rules += embedding("embed", f"{p}embeddings.word_embeddings")
  rules += embedding("positions", f"{p}embeddings.position_embeddings")
  for i in range(sizes["depth"]):
    ours, theirs = f"stack/layer_{i}", f"{p}transformer.layer.{i}"
    rules += attention(f"{ours}/self_attention", *(f"{theirs}.attention.{to}_lin" for to in ("q", "k", "v", "out")))
    rules += mlp(f"{ours}/feed_forward", f"{theirs}.ffn.lin1", f"{theirs}.ffn.lin2")
    rules += norm(f"{ours}/attention_norm", f"{theirs}.sa_layer_norm")
    rules += norm(f"{ours}/mlp_norm", f"{theirs}.output_layer_norm")
  if head in ("classify", "multiple_choice"):
    rules += linear("pooler", "pre_classifier")
  if head == "mlm":
    rules += linear("mlm/dense", "vocab_transform") + norm("mlm/norm", "vocab_layer_norm")
    rules += [Rule("mlm/bias", "vocab_projector.bias")]
  last = {"classify": "classify", "multiple_choice": "choose", "classify_tokens": "classify_tokens"}
  if head in last:
    rules += linear(last[head], "classifier")
  if head == "question_answering":
    rules += linear("answer", "qa_outputs")
  return rules
