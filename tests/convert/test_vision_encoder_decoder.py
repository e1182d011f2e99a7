"""Captioners of an image encoder and a decoder against torch transformers."""

import json

import numpy as np
import pytest

import zoo
from tests.convert.parity import Case, check, reference, to_torch
from zoo.errors import UserError

VIT = dict(
  model_type="vit", image_size=6, patch_size=2, hidden_size=12, num_hidden_layers=2, num_attention_heads=3,
  intermediate_size=20,
)  # fmt: skip
DINO = dict(
  model_type="dinov2", image_size=6, patch_size=3, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
  mlp_ratio=2,
)  # fmt: skip
CLIP = {**VIT, "model_type": "clip_vision_model", "num_hidden_layers": 1}
READS = dict(is_decoder=True, add_cross_attention=True)
GPT = dict(model_type="gpt2", vocab_size=37, n_positions=11, n_embd=15, n_layer=2, n_head=5, **READS)
BERT = dict(
  model_type="bert", vocab_size=31, max_position_embeddings=13, hidden_size=12, num_hidden_layers=1,
  num_attention_heads=2, intermediate_size=17, **READS,
)  # fmt: skip
ROBERTA = {**BERT, "model_type": "roberta", "max_position_embeddings": 15}
WRITTEN = (("decoder/stack/layer_(\\d+)", "decoder_hidden_states"),)
LOOKS = (
  ("decoder/stack/layer_(\\d+)/self_attention", "decoder_attentions"),
  ("decoder/stack/layer_(\\d+)/cross_attention", "cross_attentions"),
)


def case(name, encoder, decoder, **options):
  def drawn(rng):
    image = rng.normal(size=(2, encoder["image_size"], encoder["image_size"], 3)).astype(np.float32)
    return image, rng.integers(5, decoder["vocab_size"], (2, 7)).astype(np.int32)

  def theirs(rng):
    image, tokens = drawn(rng)
    return {
      "pixel_values": to_torch(np.ascontiguousarray(image.transpose(0, 3, 1, 2))),
      "decoder_input_ids": to_torch(tokens),
    }

  # Nothing reads what theirs pools.
  pooled = [f"encoder.pooler.dense.{kind}" for kind in ("weight", "bias")] if encoder is VIT else []
  return Case(
    name, "VisionEncoderDecoderModel", "VisionEncoderDecoderConfig", dict(encoder=encoder, decoder=decoder),
    lambda rng: (drawn(rng), {}), theirs, {"logits": (lambda out: out["logits"], lambda out: out.logits)},
    lacking=frozenset(pooled), **{"hidden": WRITTEN, "weights": LOOKS, **options},
  )  # fmt: skip


CASES = [
  case("vit-gpt2", VIT, GPT, last_is_normed=True),
  case("dinov2-bert", DINO, BERT),
  case("clip-roberta", CLIP, ROBERTA),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


def test_what_is_not_there_is_refused_by_name(tmp_path):
  for name, encoder, decoder, message in (
    ("swin", dict(model_type="swin"), GPT, "encoder: the zoo has no 'swin' here. It has: vit, dinov2"),
    ("llama", VIT, dict(model_type="llama", **READS), "decoder: the zoo has no 'llama' here. It has: gpt2, bert"),
  ):
    config = {"model_type": "vision-encoder-decoder", "encoder": encoder, "decoder": decoder}
    folder = tmp_path / name
    reference(case("small", VIT, GPT)).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
      zoo.load(folder)
  (folder / "config.json").write_text(json.dumps({**config, "decoder": {**GPT, "add_cross_attention": False}}))
  with pytest.raises(UserError, match="decoder: add_cross_attention is False, which the zoo does not have"):
    zoo.load(folder)
