"""RoBERTa in the hub's layout: https://huggingface.co/FacebookAI/roberta-base. Its encoder is named as BERT's."""

from zoo.convert import bert
from zoo.convert.rules.layouts import Rule, linear, norm
from zoo.convert.rules.options import Key, Options, entries, named_labels

MODEL_TYPES = ("roberta", "xlm-roberta", "camembert")  # The same model with other vocabularies.
HEADS = {
  head: tuple(f"{name}{end}" for name in ("Roberta", "XLMRoberta", "Camembert"))
  for head, end in {
    "mlm": "ForMaskedLM",
    None: "Model",
    "classify": "ForSequenceClassification",
    "classify_tokens": "ForTokenClassification",
    "question_answering": "ForQuestionAnswering",
    "multiple_choice": "ForMultipleChoice",
  }.items()
}
PREFIX = "roberta."
RENAMED = bert.RENAMED
TIED = {
  "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
  "lm_head.decoder.bias": "lm_head.bias",
}
IGNORED = (r"(roberta\.)?embeddings\.position_ids",)

KEYS = (
  Key("vocab_size", "vocab_size", 50265),
  Key("pad_token_id", "pad", 1),
  *(key for key in bert.KEYS if key.ours not in ("vocab_size", "max_length", "pad")),
)


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  sizes = options.sizes(KEYS)
  if options.entries.get("model_type") != "roberta":
    sizes["vocab_size"] = options.take("vocab_size", 30522)
  options.ignore("attention_probs_dropout_prob", "classifier_dropout")
  return sizes | of_encoder(options, sizes["pad"], head, tensors)


def of_encoder(options: Options, pad, head, tensors):
  """The sizes that Longformer's files state in the same entries; what neither family has is refused."""
  options.must_be("position_embedding_type", "absolute")
  options.must_be("is_decoder", False)
  options.must_be("add_cross_attention", False)
  options.must_be("tie_word_embeddings", True)
  return {
    # Theirs is the number of rows of the table; positions start after the row of the padding token.
    "max_length": options.take("max_position_embeddings", 512) - pad - 1,
    "head": head,
    "num_classes": options.num_labels() if head in ("classify", "classify_tokens") else None,
    "pooler": any(name.endswith("pooler.dense.weight") for name in tensors),
  }


def cross(ours, layer, dim):
  """As of `zoo.convert.bert`."""
  return bert.cross(ours, layer, dim, PREFIX)


def config(sizes):
  """-> config.json"""
  sizes = {**sizes, "mlp_dim": sizes["mlp_dim"] or 4 * sizes["dim"]}
  labels = {} if sizes["num_classes"] is None else named_labels(sizes["num_classes"])
  return {
    "model_type": "roberta",
    "attention_probs_dropout_prob": sizes["dropout"],
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
  if head == "multiple_choice" or head is None and sizes["pooler"]:
    rules += linear("pooler", f"{p}pooler.dense")
  return rules + head_rules(head)


def head_rules(head):
  """Rules of the layers after the encoder, shared by other families."""
  rules = []
  if head == "mlm":
    rules += linear("mlm/dense", "lm_head.dense") + norm("mlm/norm", "lm_head.layer_norm")
    rules += [Rule("mlm/bias", "lm_head.bias")]
  if head == "classify":
    rules += linear("summary", "classifier.dense") + linear("classify", "classifier.out_proj")
  if head == "multiple_choice":
    rules += linear("choose", "classifier")
  if head == "classify_tokens":
    rules += linear("classify_tokens", "classifier")
  if head == "question_answering":
    rules += linear("answer", "qa_outputs")
  return rules
