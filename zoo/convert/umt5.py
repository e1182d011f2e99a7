"""UMT5 in the hub's layout: https://huggingface.co/google/umt5-small, and text encoders like that of WAN."""

from zoo.convert import t5
from zoo.convert.rules.layouts import embedding
from zoo.convert.rules.options import Options

MODEL_TYPES = ("umt5",)
HEADS = {
  "lm": ("UMT5ForConditionalGeneration",),
  None: ("UMT5Model",),
  "encoder": ("UMT5EncoderModel",),
  "classify": ("UMT5ForSequenceClassification",),
  "classify_tokens": ("UMT5ForTokenClassification",),
  "question_answering": ("UMT5ForQuestionAnswering",),
}
PREFIX, TIED = t5.PREFIX, t5.TIED


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  options.ignore("scalable_attention")  # In Google's files, but not read by any code.
  # As in transformers 4 and T5X: from version 5 on the reference always scales, and writes so.
  return t5.sizes(options, head, tensors) | {"scaled": options.take("tie_word_embeddings", True)}


def config(sizes):
  """-> config.json"""
  entries = t5.config(sizes)
  del entries["scale_decoder_outputs"]
  return entries | {"model_type": "umt5"}


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  rules, p = t5.body_rules(sizes), t5.prefix(sizes)
  for tower, depth in t5.towers(sizes).items():
    for i in range(depth):
      theirs = f"{p}{tower}.block.{i}.layer.0.SelfAttention.relative_attention_bias"
      rules += embedding(f"{tower}/stack/layer_{i}/self_attention/relative", theirs)
  return rules
