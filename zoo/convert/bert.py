"""BERT in the hub's layout: https://huggingface.co/google-bert/bert-base-uncased, and sentence encoders of its kind."""

from zoo.convert.rules.layouts import Rule, attention, embedding, linear, mlp, norm
from zoo.convert.rules.options import ACTIVATIONS, Key, Options, entries, named_labels

MODEL_TYPES = ("bert",)
HEADS = {
  None: ("BertModel",),
  "pretraining": ("BertForPreTraining",),
  "mlm": ("BertForMaskedLM",),
  "next_sentence": ("BertForNextSentencePrediction",),
  "classify": ("BertForSequenceClassification",),
  "classify_tokens": ("BertForTokenClassification",),
  "question_answering": ("BertForQuestionAnswering",),
  "multiple_choice": ("BertForMultipleChoice",),
}
PREFIX = "bert."
RENAMED = [(r"\.gamma$", ".weight"), (r"\.beta$", ".bias")]  # TensorFlow's names.
TIED = {
  "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
  "cls.predictions.decoder.bias": "cls.predictions.bias",
}
IGNORED = (r"(bert\.)?embeddings\.position_ids",)

KEYS = (
  Key("vocab_size", "vocab_size", 30522),
  Key("max_position_embeddings", "max_length", 512),
  Key("hidden_size", "dim", 768),
  Key("num_hidden_layers", "depth", 12),
  Key("num_attention_heads", "num_heads", 12),
  Key("intermediate_size", "mlp_dim", 3072),
  Key("type_vocab_size", "num_segments", 2),
  Key("hidden_act", "activation", "gelu", ACTIVATIONS),
  Key("layer_norm_eps", "epsilon", 1e-12),
  Key("hidden_dropout_prob", "dropout", 0.1),
  Key("pad_token_id", "pad", 0),
)


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  sizes = options.sizes(KEYS)
  if options.entries.get("pad_token_id", 0) is None:
    sizes["pad"] = None
  sizes |= {"head": head, "num_classes": options.num_labels() if head in ("classify", "classify_tokens") else None}
  options.must_be("position_embedding_type", "absolute")
  options.must_be("is_decoder", False)
  options.must_be("add_cross_attention", False)
  options.must_be("tie_word_embeddings", True)
  options.ignore("attention_probs_dropout_prob", "classifier_dropout", "directionality")
  return sizes


def config(sizes):
  """-> config.json"""
  sizes = {**sizes, "mlp_dim": sizes["mlp_dim"] or 4 * sizes["dim"]}
  labels = {} if sizes["num_classes"] is None else named_labels(sizes["num_classes"])
  return {
    "model_type": "bert",
    "attention_probs_dropout_prob": sizes["dropout"],
    "tie_word_embeddings": True,
    **entries(KEYS, sizes),
    **labels,
  }


def encoder(p, depth):
  """Rules of the encoder, shared by other families; `p` prefixes every name."""
  rules = norm("norm", f"{p}embeddings.LayerNorm")
  for ours, theirs in (("embed", "word"), ("positions", "position"), ("segments", "token_type")):
    rules += embedding(ours, f"{p}embeddings.{theirs}_embeddings")
  for i in range(depth):
    rules += layer(f"stack/layer_{i}", f"{p}encoder.layer.{i}")
  return rules


def layer(ours, theirs):
  """Rules of one layer."""
  names = [f"{theirs}.attention.self.{name}" for name in ("query", "key", "value")]
  rules = attention(f"{ours}/self_attention", *names, f"{theirs}.attention.output.dense")
  rules += mlp(f"{ours}/feed_forward", f"{theirs}.intermediate.dense", f"{theirs}.output.dense")
  rules += norm(f"{ours}/attention_norm", f"{theirs}.attention.output.LayerNorm")
  return rules + norm(f"{ours}/mlp_norm", f"{theirs}.output.LayerNorm")


def cross(ours, layer, dim, prefix=PREFIX):
  """Rules of the cross-attention in a decoder's layer; `ours` is its path."""
  theirs = f"{prefix}encoder.layer.{layer}.crossattention"
  names = [f"{theirs}.self.{name}" for name in ("query", "key", "value")]
  rules = attention(f"{ours}/cross_attention", *names, f"{theirs}.output.dense")
  return rules + norm(f"{ours}/cross_norm", f"{theirs}.output.LayerNorm")


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  head = sizes["head"]
  p = "" if head is None else PREFIX
  rules = encoder(p, sizes["depth"])
  if head not in ("mlm", "classify_tokens", "question_answering"):
    rules += linear("pooler", f"{p}pooler.dense")
  if head in ("pretraining", "mlm"):
    rules += linear("mlm/dense", "cls.predictions.transform.dense")
    rules += norm("mlm/norm", "cls.predictions.transform.LayerNorm")
    rules += [Rule("mlm/bias", "cls.predictions.bias")]
  if head in ("pretraining", "next_sentence"):
    rules += linear("nsp", "cls.seq_relationship")
  last = {"classify": "classify", "multiple_choice": "choose", "classify_tokens": "classify_tokens"}
  if head in last:
    rules += linear(last[head], "classifier")
  if head == "question_answering":
    rules += linear("answer", "qa_outputs")
  return rules
