"""MPNet in the hub's layout: https://huggingface.co/microsoft/mpnet-base, and sentence encoders of its kind."""

from zoo.convert import roberta
from zoo.convert.rules.layouts import attention, embedding, linear, mlp, norm
from zoo.convert.rules.options import Key, Options, entries, named_labels
from zoo.errors import UserError
from zoo.models.mpnet import BUCKETS

MODEL_TYPES = ("mpnet",)
HEADS = {
  "mlm": ("MPNetForMaskedLM",),
  None: ("MPNetModel",),
  "classify": ("MPNetForSequenceClassification",),
  "classify_tokens": ("MPNetForTokenClassification",),
  "question_answering": ("MPNetForQuestionAnswering",),
  "multiple_choice": ("MPNetForMultipleChoice",),
}
PREFIX = "mpnet."
TIED = {
  "lm_head.decoder.weight": "mpnet.embeddings.word_embeddings.weight",
  "lm_head.decoder.bias": "lm_head.bias",
}
IGNORED = (r"(mpnet\.)?embeddings\.position_ids",)
PAD = 1  # Independent of pad_token_id, as in the reference's code.

KEYS = (
  Key("vocab_size", "vocab_size", 30527),
  Key("layer_norm_eps", "epsilon", 1e-12),
  *(key for key in roberta.KEYS if key.ours not in ("vocab_size", "epsilon", "pad", "num_segments")),
)


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  sizes = options.sizes(KEYS)
  # Theirs is the number of rows of the table; positions start after the row of the padding token.
  sizes["max_length"] = options.take("max_position_embeddings", 512) - PAD - 1
  sizes |= {"head": head, "num_classes": options.num_labels() if head in ("classify", "classify_tokens") else None}
  sizes["pooler"] = any(name.endswith("pooler.dense.weight") for name in tensors)
  # Their code always uses 32 buckets.
  options.must_be("relative_attention_num_buckets", BUCKETS)
  options.must_be("tie_word_embeddings", True)
  options.ignore("attention_probs_dropout_prob", "pad_token_id")
  return sizes


def config(sizes):
  """-> config.json"""
  if sizes["pad"] != PAD:
    raise UserError(f"An MPNet with pad {sizes['pad']} is not one of the hub's, where it is {PAD}. Use zoo.save.")
  sizes = {**sizes, "mlp_dim": sizes["mlp_dim"] or 4 * sizes["dim"]}
  labels = {} if sizes["num_classes"] is None else named_labels(sizes["num_classes"])
  return {
    "model_type": "mpnet",
    "attention_probs_dropout_prob": sizes["dropout"],
    "max_position_embeddings": sizes["max_length"] + PAD + 1,
    "pad_token_id": PAD,
    "relative_attention_num_buckets": BUCKETS,
    "tie_word_embeddings": True,
    **entries(KEYS, sizes),
    **labels,
  }


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  head = sizes["head"]
  p = "" if head is None else PREFIX
  rules = norm("norm", f"{p}embeddings.LayerNorm") + embedding("bias", f"{p}encoder.relative_attention_bias")
  for ours, theirs in (("embed", "word"), ("positions", "position")):
    rules += embedding(ours, f"{p}embeddings.{theirs}_embeddings")
  for i in range(sizes["depth"]):
    ours, theirs = f"stack/layer_{i}", f"{p}encoder.layer.{i}"
    rules += attention(f"{ours}/self_attention", *(f"{theirs}.attention.attn.{to}" for to in "qkvo"))
    rules += mlp(f"{ours}/feed_forward", f"{theirs}.intermediate.dense", f"{theirs}.output.dense")
    rules += norm(f"{ours}/attention_norm", f"{theirs}.attention.LayerNorm")
    rules += norm(f"{ours}/mlp_norm", f"{theirs}.output.LayerNorm")
  if head == "multiple_choice" or head is None and sizes["pooler"]:
    rules += linear("pooler", f"{p}pooler.dense")
  return rules + roberta.head_rules(head)
