"""BigBird in the hub's layout: https://huggingface.co/google/bigbird-roberta-base. Its encoder is named as BERT's."""

from zoo.convert import bert
from zoo.convert.rules.layouts import Rule, linear, mlp, norm
from zoo.convert.rules.options import ACTIVATIONS, Key, Options, entries, named_labels

MODEL_TYPES = ("big_bird",)
HEADS = {
  None: ("BigBirdModel",),
  "pretraining": ("BigBirdForPreTraining",),
  "mlm": ("BigBirdForMaskedLM",),
  "classify": ("BigBirdForSequenceClassification",),
  "classify_tokens": ("BigBirdForTokenClassification",),
  "question_answering": ("BigBirdForQuestionAnswering",),
  "multiple_choice": ("BigBirdForMultipleChoice",),
}
PREFIX = "bert."
RENAMED = bert.RENAMED
TIED = bert.TIED
IGNORED = (r"(bert\.)?embeddings\.(position_ids|token_type_ids)",)

OWN = ("vocab_size", "max_length", "activation")
KEYS = (
  Key("vocab_size", "vocab_size", 50358),
  Key("max_position_embeddings", "max_length", 4096),
  Key("hidden_act", "activation", "gelu_new", ACTIVATIONS),
  Key("block_size", "block_size", 64),
  Key("num_random_blocks", "num_random", 3),
  *(key for key in bert.KEYS if key.ours not in OWN),
)
FULL = "original_full"


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  sizes = options.sizes(KEYS)
  if options.entries.get("pad_token_id", 0) is None:
    sizes["pad"] = None
  sizes["separator"] = options.nullable("sep_token_id", 66)
  if options.take("attention_type", "block_sparse") == FULL:
    sizes["block_size"] = None
  else:
    options.must_be("attention_type", "block_sparse")
  sizes |= {"head": head, "num_classes": options.num_labels() if head in ("classify", "classify_tokens") else None}
  options.must_be("use_bias", True)
  options.must_be("rescale_embeddings", False)
  options.must_be("is_decoder", False)
  options.must_be("add_cross_attention", False)
  options.must_be("tie_word_embeddings", True)
  options.ignore("attention_probs_dropout_prob", "classifier_dropout")
  return sizes


def config(sizes):
  """-> config.json"""
  full = sizes["block_size"] is None
  sizes = {**sizes, "mlp_dim": sizes["mlp_dim"] or 4 * sizes["dim"], "block_size": sizes["block_size"] or 64}
  labels = {} if sizes["num_classes"] is None else named_labels(sizes["num_classes"])
  return {
    "model_type": "big_bird",
    "attention_type": FULL if full else "block_sparse",
    "attention_probs_dropout_prob": sizes["dropout"],
    "tie_word_embeddings": True,
    "sep_token_id": sizes["separator"],
    **entries(KEYS, sizes),
    **labels,
  }


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  head = sizes["head"]
  p = "" if head is None else PREFIX
  rules = bert.encoder(p, sizes["depth"])
  if head in ("pretraining", "multiple_choice", None):
    rules += linear("pooler", f"{p}pooler")
  if head in ("pretraining", "mlm"):
    rules += linear("mlm/dense", "cls.predictions.transform.dense")
    rules += norm("mlm/norm", "cls.predictions.transform.LayerNorm")
    rules += [Rule("mlm/bias", "cls.predictions.bias")]
  if head == "pretraining":
    rules += linear("nsp", "cls.seq_relationship")
  if head == "classify":
    rules += linear("summary", "classifier.dense") + linear("classify", "classifier.out_proj")
  if head == "classify_tokens":
    rules += linear("classify_tokens", "classifier")
  if head == "multiple_choice":
    rules += linear("choose", "classifier")
  if head == "question_answering":
    q = "qa_classifier"
    rules += mlp("answer/mlp", f"{q}.intermediate.dense", f"{q}.output.dense")
    rules += norm("answer/norm", f"{q}.output.LayerNorm") + linear("answer/out", "qa_classifier.qa_outputs")
  return rules
