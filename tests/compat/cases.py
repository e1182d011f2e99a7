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

# Of the other families one layer is enough to see what its arrays are called.
ONE = dict(hidden_size=12, num_hidden_layers=1, num_attention_heads=3, intermediate_size=30)
ROBERTA = dict(vocab_size=37, max_position_embeddings=19, type_vocab_size=1, pad_token_id=1, **ONE)
DISTILBERT = dict(vocab_size=37, max_position_embeddings=19, dim=12, n_layers=1, n_heads=3, hidden_dim=30)
IMAGES = dict(image_size=12, patch_size=4, **ONE)
DINOV2 = {name: value for name, value in IMAGES.items() if name != "intermediate_size"}  # It has a mlp_ratio.
GPT2 = dict(vocab_size=37, n_positions=19, n_embd=12, n_layer=1, n_head=3)
LLAMA = dict(vocab_size=37, max_position_embeddings=19, num_key_value_heads=3, **ONE)
GEMMA = {**LLAMA, "num_key_value_heads": 1, "head_dim": 4}
BART = dict(
  vocab_size=37, max_position_embeddings=19, d_model=12, encoder_layers=1, decoder_layers=1, encoder_attention_heads=3,
  decoder_attention_heads=2, encoder_ffn_dim=20, decoder_ffn_dim=22,
)  # fmt: skip
MARIAN = {**BART, "pad_token_id": 36, "eos_token_id": 0, "decoder_start_token_id": 36, "scale_embedding": True}
WHISPER = dict(
  vocab_size=37, d_model=12, encoder_layers=1, decoder_layers=1, encoder_attention_heads=3, decoder_attention_heads=2,
  encoder_ffn_dim=20, decoder_ffn_dim=22, num_mel_bins=5, max_source_positions=8, max_target_positions=19,
  pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3,
)  # fmt: skip
CONFIGS |= {
  "FlaxRobertaModel": ROBERTA,
  "FlaxXLMRobertaForSequenceClassification": ROBERTA,
  "FlaxDistilBertForMaskedLM": DISTILBERT,
  "FlaxViTModel": IMAGES,
  "FlaxDinov2ForImageClassification": DINOV2,
  "FlaxGPT2Model": GPT2,
  "FlaxGPT2LMHeadModel": GPT2,
  "FlaxLlamaModel": LLAMA,
  "FlaxMistralForCausalLM": LLAMA,
  "FlaxGemmaForCausalLM": GEMMA,
  "FlaxT5Model": {**T5, "num_layers": 1},
  "FlaxMT5ForConditionalGeneration": {**T5, **GATED, "num_layers": 1, "tie_word_embeddings": False},
  "FlaxBartForConditionalGeneration": BART,
  "FlaxMarianMTModel": MARIAN,
  "FlaxWhisperForConditionalGeneration": WHISPER,
}
# Decoders with cross-attention to another model's encoder.
CROSSING = dict(is_decoder=True, add_cross_attention=True)
CONFIGS |= {
  "FlaxBertForCausalLM": {**BERT, "num_hidden_layers": 1, **CROSSING},
  "FlaxRobertaForCausalLM": {**ROBERTA, **CROSSING},
  "FlaxGPT2LMHeadModel-crossing": {**GPT2, "add_cross_attention": True},
  "FlaxBartForCausalLM": BART,
}
WIDER = {**IMAGES, "hidden_size": 15, "num_attention_heads": 5, "model_type": "vit"}
READER = {**ROBERTA, "hidden_size": 15, "num_attention_heads": 5, "model_type": "roberta"}
COMPOSED = {
  "FlaxEncoderDecoderModel": dict(
    encoder=READER,
    decoder={**BERT, "num_hidden_layers": 1, "model_type": "bert", **CROSSING},
    decoder_start_token_id=3,
  ),
  "FlaxVisionEncoderDecoderModel": dict(
    encoder=WIDER, decoder={**GPT2, "model_type": "gpt2", "add_cross_attention": True}, decoder_start_token_id=3,
  ),
  "FlaxVisionTextDualEncoderModel": dict(
    vision_config=WIDER, text_config={**ROBERTA, "model_type": "roberta"}, projection_dim=7,
  ),
}  # fmt: skip
OLD_NAMES = json.loads((Path(__file__).parent / "old_names.json").read_text())


def text_inputs(*shape, seed=0):
  """Token ids with an end-of-sequence token, and an attention mask, as tokenizers return them."""
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
