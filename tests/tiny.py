"""Tiny models that can learn, the objectives that train them, and a batch with everything an objective looks at."""

import jax
import jax.numpy as jnp
import numpy as np

import zoo
from tests.filled import numbers
from zoo import named

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
  return named.call("objectives", options, model or tiny_model(case, **sizes))


def tiny_batch(rows=16, length=11, vocab_size=23, image_size=6, seed=0):
  """Random rows; the last two count for nothing, some share a group."""
  rng = np.random.default_rng(seed)
  lengths = rng.integers(5, length + 1, rows)
  return {
    "tokens": jnp.array(rng.integers(0, vocab_size, (rows, length)), jnp.int32),
    "valid": jnp.array(np.arange(length)[None] < lengths[:, None]),
    "target_tokens": jnp.array(rng.integers(0, vocab_size, (rows, 7)), jnp.int32),
    "target_valid": jnp.array(np.arange(7)[None] < rng.integers(2, 8, rows)[:, None]),
    "segments": jnp.array(rng.integers(0, 2, (rows, length)), jnp.int32),
    "word_start": jnp.array(rng.random((rows, length)) < 0.6),
    "is_random": jnp.array(rng.integers(0, 2, rows), jnp.int32),
    "image": jnp.array(rng.uniform(-1, 1, (rows, image_size, image_size, 3)), jnp.float32),
    "label": jnp.array(rng.integers(0, 5, rows), jnp.int32),
    "group": jnp.array(rng.integers(0, rows, rows), jnp.int32),
    "weight": jnp.array(np.arange(rows) < rows - 2, jnp.float32),
  }


def drawn(objective, batch):
  """Parameters for an objective without an array of constants, which would hide a gradient."""
  return numbers(jax.eval_shape(objective.init, jax.random.key(0), batch), seed=1)
