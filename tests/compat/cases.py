"""Tiny configs, as old_names.json was made of: what the classes of transformers 4.57.1 called their parameters."""

import json
from pathlib import Path

import numpy as np

TEXT = dict(
  vocab_size=37, max_position_embeddings=13, hidden_size=12, num_hidden_layers=2, num_attention_heads=3,
  intermediate_size=30, eos_token_id=2, projection_dim=7,
)  # fmt: skip
VISION = dict(
  image_size=12, patch_size=4, hidden_size=10, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
  projection_dim=7,
)  # fmt: skip
BERT = dict(
  vocab_size=37, max_position_embeddings=19, hidden_size=12, num_hidden_layers=2, num_attention_heads=3,
  intermediate_size=30,
)  # fmt: skip
T5 = dict(vocab_size=37, d_model=12, d_kv=5, d_ff=30, num_layers=2, num_heads=3, decoder_start_token_id=0)
GATED = dict(feed_forward_proj="gated-gelu", relative_attention_num_buckets=9, relative_attention_max_distance=7)
CLIP = dict(text_config=TEXT, vision_config=VISION, projection_dim=7)

CONFIGS = {
  "FlaxCLIPTextModel": TEXT,
  "FlaxCLIPTextModelWithProjection": {**TEXT, "eos_token_id": 5, "hidden_act": "gelu"},
  "FlaxCLIPVisionModel": VISION,
  "FlaxCLIPModel": CLIP,
  "FlaxT5EncoderModel": T5,
  "FlaxT5EncoderModel-gated": {**T5, **GATED},
  "FlaxBertModel": BERT,
  "FlaxBertForPreTraining": BERT,
  "FlaxBertForMaskedLM": BERT,
  "FlaxBertForNextSentencePrediction": BERT,
  "FlaxBertForSequenceClassification": BERT,
  "FlaxBertForTokenClassification": BERT,
  "FlaxBertForQuestionAnswering": BERT,
  "FlaxBertForMultipleChoice": BERT,
}
OLD_NAMES = json.loads((Path(__file__).parent / "old_names.json").read_text())


def text_inputs(*shape, seed=0):
  """Tokens of which one is an end, and a mask, as tokenizers give them."""
  rng = np.random.default_rng(seed)
  tokens = rng.integers(6, 37, shape)
  tokens[0, ..., 5] = 5
  mask = np.ones(shape, np.int64)
  mask[1, ..., 5:] = 0
  return {"input_ids": tokens, "attention_mask": mask}


def randomised(shapes, seed=1):
  """A tree of these shapes without constants."""
  import jax

  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    around = 1.0 if path[-1].key in ("scale", "weight") else 0.0
    spread = 0.3 if len(leaf.shape) < 2 else leaf.shape[0] ** -0.5
    return (around + spread * rng.normal(size=leaf.shape)).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)
