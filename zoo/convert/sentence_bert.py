"""The zoo's sentence encoders as the BERT that they are: https://huggingface.co/sentence-transformers.

Folders of such encoders load as `bert`, whose model_type they have; this table writes what was trained as
`sentence_bert`.
"""

from zoo.convert import bert
from zoo.errors import UserError

MODEL_TYPES, LOADS_AS = (), "bert"
HEADS = {None: ("BertModel",)}
SENTENCE = {"pooling": ["mean"]}  # What its files say where a model carries nothing else.


def head_of(sizes):
  """None: there is no published head that reads the mean over the tokens."""


def with_head(sizes, head):
  """Sizes of the model without classes."""
  return {**sizes, "num_classes": None}


def sizes(options, head, tensors):
  """-> arguments of `zoo.build`: those of a BERT that this one has too."""
  return {name: size for name, size in bert.sizes(options, head, tensors).items() if name not in ("head", "pad")}


def config(sizes):
  """-> config.json"""
  return bert.config({**sizes, "pad": 0, "num_classes": None})


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  if sizes["num_classes"] is not None:
    raise UserError(
      "The hub has no layout for classes of a mean over tokens. Use zoo.save, or train a bert with head='classify'."
    )
  return bert.encoder("", sizes["depth"])
