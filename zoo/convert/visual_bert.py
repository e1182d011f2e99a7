"""VisualBERT in the hub's layout: https://huggingface.co/uclanlp/visualbert-vqa. Its layers are named as BERT's."""

from zoo.convert import bert
from zoo.convert.rules.layouts import Rule, linear, norm
from zoo.convert.rules.options import Key, Options, entries, named_labels

MODEL_TYPES = ("visual_bert",)
HEADS = {
  None: ("VisualBertModel",),
  "pretraining": ("VisualBertForPreTraining",),
  "classify": ("VisualBertForVisualReasoning",),
  "classify_answers": ("VisualBertForQuestionAnswering",),
  "multiple_choice": ("VisualBertForMultipleChoice",),
  "align": ("VisualBertForRegionToPhraseAlignment",),
}
PREFIX = "visual_bert."
RENAMED = bert.RENAMED
TIED = {
  "cls.predictions.decoder.weight": "visual_bert.embeddings.word_embeddings.weight",
  "cls.predictions.decoder.bias": "cls.predictions.bias",
}
IGNORED = (r"(visual_bert\.)?embeddings\.position_ids", r"attention\.value\.(weight|bias)")  # Nothing reads the values.

KEYS = (
  *(key for key in bert.KEYS if key.ours != "pad"),
  Key("pad_token_id", "pad", 1),
  Key("visual_embedding_dim", "region_dim", 512),
)


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  sizes = options.sizes(KEYS)
  if options.entries.get("pad_token_id", 1) is None:
    sizes["pad"] = None
  classes = options.num_labels() if head in ("classify", "classify_answers") else None
  sizes |= {"head": head, "num_classes": classes, "early_fusion": not options.take("bypass_transformer", False)}
  options.must_be("tie_word_embeddings", True)
  options.ignore("attention_probs_dropout_prob", "special_visual_initialize")
  return sizes


def config(sizes):
  """-> config.json"""
  sizes = {**sizes, "mlp_dim": sizes["mlp_dim"] or 4 * sizes["dim"]}
  labels = {} if sizes["num_classes"] is None else named_labels(sizes["num_classes"])
  return {
    "model_type": "visual_bert",
    "attention_probs_dropout_prob": sizes["dropout"],
    "bypass_transformer": not sizes["early_fusion"],
    "tie_word_embeddings": True,
    **entries(KEYS, sizes),
    **labels,
  }


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  head = sizes["head"]
  p = "" if head is None else PREFIX
  rules = bert.encoder(p, sizes["depth"])
  rules += linear("regions/dense", f"{p}embeddings.visual_projection")
  rules += [Rule("regions/segments", f"{p}embeddings.visual_token_type_embeddings.weight")]
  rules += [Rule("regions/positions", f"{p}embeddings.visual_position_embeddings.weight")]
  if not sizes["early_fusion"]:
    rules += bert.layer("fusion", f"{p}additional_layer")
  if head not in ("classify_answers", "align"):
    rules += linear("pooler", f"{p}pooler.dense")
  if head == "pretraining":
    rules += linear("mlm/dense", "cls.predictions.transform.dense")
    rules += norm("mlm/norm", "cls.predictions.transform.LayerNorm")
    rules += [Rule("mlm/bias", "cls.predictions.bias"), *linear("nsp", "cls.seq_relationship")]
  if head in ("classify", "classify_answers"):
    rules += linear("classify", "cls")
  if head == "multiple_choice":
    rules += linear("choose", "cls")
  if head == "align":
    rules += linear("align/phrase", "attention.query") + linear("align/region", "attention.key")
  return rules
