"""Tiny models that can learn, the objectives that train them, and a batch with everything an objective looks at."""

import jax
import numpy as np

import zoo
from tests.filled import numbers
from zoo.config import registry

MASKED = {"mask_token": 3, "special_tokens": [0, 1, 2]}
OBJECTIVES = {
  "causal_lm": {},
  "masked_lm": MASKED,
  "whole words": {**MASKED, "name": "masked_lm", "whole_word": True, "rate": 0.4},
  "next_sentence": {},
  "bert_pretraining": MASKED,
  "contrastive": {},
  "sigmoid_contrastive": {},
  "classify": {"label_smoothing": 0.1},
  "seq2seq": {"label_smoothing": 0.1},
}


def tiny_model(case, **sizes):
  """A model that the objective `case` can train; its sizes are hardly ever alike."""
  tokens = {"vocab_size": 23, "max_length": 11}
  image = {"image_size": 6, "patch_size": 3}
  tower = {"dim": 6, "depth": 1, "num_heads": 3}
  if case == "causal_lm":
    return zoo.build("gpt", **{**tokens, **tower, **sizes})
  if case == "seq2seq":
    return zoo.build("transformer", **{**tokens, **tower, **sizes})
  if case == "classify":
    return zoo.build("vit", **{**image, **tower, "num_classes": 5, **sizes})
  if case not in ("contrastive", "sigmoid_contrastive"):
    return zoo.build("bert", **{**tokens, **tower, **sizes})
  towers = {"image_dim": 6, "image_depth": 1, "image_heads": 3, "text_dim": 10, "text_depth": 1, "text_heads": 5}
  bias = {"logit_bias": -10.0} if case == "sigmoid_contrastive" else {}
  return zoo.build("clip", **{**tokens, **image, **towers, **bias, "embed_dim": 7, **sizes})


def tiny_objective(case, model=None, **sizes):
  """The objective `case` of a model, by default its tiny one."""
  options = {"name": case, **OBJECTIVES[case]}
  if model is not None and "mask_token" in options:
    options["vocab_size"] = 23
  return registry.build("objectives", options, model or tiny_model(case, **sizes))


def tiny_batch(rows=16, length=11, vocab_size=23, image_size=6, seed=0):
  """Random rows; the last two count for nothing, some share a group."""
  rng = np.random.default_rng(seed)
  lengths = rng.integers(5, length + 1, rows)
  batch = {
    "tokens": rng.integers(0, vocab_size, (rows, length)),
    "valid": np.arange(length)[None] < lengths[:, None],
    "target_tokens": rng.integers(0, vocab_size, (rows, 7)),
    "target_valid": np.arange(7)[None] < rng.integers(2, 8, rows)[:, None],
    "segments": rng.integers(0, 2, (rows, length)),
    "word_start": rng.random((rows, length)) < 0.6,
    "is_random": rng.integers(0, 2, rows),
    "image": rng.uniform(-1, 1, (rows, image_size, image_size, 3)),
    "label": rng.integers(0, 5, rows),
    "group": rng.integers(0, rows, rows),
    "weight": (np.arange(rows) < rows - 2).astype(float),
  }
  return jax.device_put(batch)  # Gives them 32 bits, and compiles nothing, as jnp.array would.


def drawn(objective, batch):
  """Parameters for an objective without an array of constants, which would hide a gradient."""
  return numbers(jax.eval_shape(objective.init, jax.random.key(0), batch), seed=1)
