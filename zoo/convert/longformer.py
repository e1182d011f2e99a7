"""Longformer in the hub's layout: https://huggingface.co/allenai/longformer-base-4096. All but its global projections
is named as in RoBERTa's."""

from zoo.convert import bert, roberta
from zoo.convert.rules.layouts import heads, linear
from zoo.convert.rules.options import Key, Options, entries, named_labels

MODEL_TYPES = ("longformer",)
HEADS = {
  "mlm": ("LongformerForMaskedLM",),
  None: ("LongformerModel",),
  "classify": ("LongformerForSequenceClassification",),
  "classify_tokens": ("LongformerForTokenClassification",),
  "question_answering": ("LongformerForQuestionAnswering",),
  "multiple_choice": ("LongformerForMultipleChoice",),
}
PREFIX = "longformer."
TIED = {
  "lm_head.decoder.weight": "longformer.embeddings.word_embeddings.weight",
  "lm_head.decoder.bias": "lm_head.bias",
}
IGNORED = (r"(longformer\.)?embeddings\.position_ids",)

KEYS = (
  Key("pad_token_id", "pad", 1),
  Key("sep_token_id", "separator", 2),
  *(key for key in bert.KEYS if key.ours not in ("max_length", "pad")),
)


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  sizes = options.sizes(KEYS)
  sizes |= roberta.of_encoder(options, sizes["pad"], head, tensors)
  sizes["window"] = options.take("attention_window", 512, (int, list))
  options.must_be("attention_mode", "longformer", "sliding_chunks")
  options.must_be("attention_dilation", None, [1] * sizes["depth"])
  options.must_be("autoregressive", False)
  # Training-only rates; how their code is traced; entries of published files that nothing reads.
  options.ignore("attention_probs_dropout_prob", "classifier_dropout", "onnx_export", "ignore_attention_mask")
  return sizes


def config(sizes):
  """-> config.json"""
  sizes = {**sizes, "mlp_dim": sizes["mlp_dim"] or 4 * sizes["dim"]}
  labels = {} if sizes["num_classes"] is None else named_labels(sizes["num_classes"])
  window = sizes["window"]
  return {
    "model_type": "longformer",
    "attention_probs_dropout_prob": sizes["dropout"],
    "attention_window": [window] * sizes["depth"] if isinstance(window, int) else list(window),
    "max_position_embeddings": sizes["max_length"] + sizes["pad"] + 1,
    "tie_word_embeddings": True,
    **entries(KEYS, sizes),
    **labels,
  }


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  head = sizes["head"]
  p = "" if head is None else PREFIX
  rules = bert.encoder(p, sizes["depth"])
  for i in range(sizes["depth"]):
    for name in ("query", "key", "value"):
      ours, theirs = f"stack/layer_{i}/self_attention", f"{p}encoder.layer.{i}.attention.self"
      rules += heads(f"{ours}/global_{name}", f"{theirs}.{name}_global")
  if head == "multiple_choice" or head is None and sizes["pooler"]:
    rules += linear("pooler", f"{p}pooler.dense")
  return rules + roberta.head_rules(head)
