"""CLIP's standalone text tower in the hub's layout: the first text encoder of https://huggingface.co/black-forest-labs/FLUX.1-dev."""

from zoo.convert import clip
from zoo.convert.rules.layouts import linear
from zoo.convert.rules.options import Options, entries

MODEL_TYPES = ("clip_text_model",)
HEADS = {None: ("CLIPTextModel",), "projection": ("CLIPTextModelWithProjection",)}
PREFIX = "text_model."
IGNORED = clip.IGNORED
KEYS = (*clip.own_names(clip.TEXT, "text_"), *clip.BOTH)


def head_of(sizes):
  """The head: "projection" for a tower that has one, else None."""
  return None if sizes["embed_dim"] is None else "projection"


def with_head(sizes, head):
  """Sizes of the tower with or without a projection."""
  return {**sizes, "embed_dim": None if head is None else sizes["embed_dim"] or sizes["dim"]}


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  projection = options.take("projection_dim", 512)
  # Dropout acts only in training and is 0 in all published configs; a tower has no tied weights.
  options.ignore("dropout", "attention_dropout", "tie_word_embeddings")
  projection_entry = {"embed_dim": None if head is None else projection}
  return options.sizes(KEYS) | clip.end_of_text(options) | projection_entry


def config(sizes):
  """-> config.json"""
  projection_entry = {"projection_dim": sizes["embed_dim"] or sizes["dim"]}
  return {
    "model_type": "clip_text_model",
    **entries(KEYS, clip.full(sizes)),
    **clip.end_entry(sizes),
    **projection_entry,
  }


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  rules = clip.tower_rules("text", "text_model." if sizes["embed_dim"] else "", sizes["depth"])
  return rules + (linear("text/projection", "text_projection", bias=False) if sizes["embed_dim"] else [])
