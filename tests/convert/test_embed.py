"""Vectors of images and texts against the references, from the same folders and files."""

import json

import numpy as np
import pytest
from PIL import Image

import zoo
from tests.convert.parity import distance

TEXTS = ["a photo of a cat", "two dogs and a red ball on the grass", "x"]
TOWER = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20)
PICTURE = dict(**TOWER, image_size=21, patch_size=7)


def reference(cls, config):
  """Every parameter of it random."""
  import torch

  torch.manual_seed(0)
  model = cls(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.copy_(0.3 * torch.randn_like(parameter))
  return model


def pictures():
  rng = np.random.default_rng(0)
  return [Image.fromarray(rng.integers(0, 256, (30 + 7 * i, 41, 3)).astype(np.uint8)) for i in range(3)]


def vectors(output):
  """transformers 5 wraps what get_image_features gives."""
  tensor = getattr(output, "pooler_output", output)
  return tensor.detach().numpy()


def unit(x):
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def prepared(theirs, folder):
  """The pictures as the reference's own processor makes them."""
  import torch

  theirs.save_pretrained(folder)
  return torch.from_numpy(theirs(pictures(), return_tensors="np")["pixel_values"])


def test_of_clip(tmp_path):
  import torch
  import transformers

  text = dict(**TOWER, vocab_size=49408, max_position_embeddings=77, eos_token_id=49407)
  config = transformers.CLIPConfig(text_config=text, vision_config=PICTURE, projection_dim=10)
  there = reference(transformers.CLIPModel, config)
  there.save_pretrained(tmp_path)
  processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 21}, crop_size={"height": 21, "width": 21})
  want = unit(vectors(there.get_image_features(prepared(processor, tmp_path))))
  assert distance(zoo.embed(tmp_path, pictures(), batch_size=2), want) < 1e-5
  batch = zoo.load_tokenizer("clip")(TEXTS)
  tokens, valid = (torch.from_numpy(batch[name].astype(np.int64)) for name in ("tokens", "valid"))
  want = unit(vectors(there.get_text_features(tokens, attention_mask=valid)))
  assert distance(zoo.embed(tmp_path, TEXTS, batch_size=2), want) < 1e-5


def test_of_siglip(tmp_path):
  import tokenizers
  import torch
  import transformers

  config = transformers.SiglipConfig(
    text_config=dict(**TOWER, vocab_size=40, max_position_embeddings=13), vision_config=PICTURE
  )
  there = reference(transformers.SiglipModel, config)
  there.save_pretrained(tmp_path)
  processor = transformers.SiglipImageProcessorPil(size={"height": 21, "width": 21})
  want = unit(vectors(there.get_image_features(prepared(processor, tmp_path))))
  assert distance(zoo.embed(tmp_path, pictures(), batch_size=2), want) < 1e-5
  letters = {letter: i + 2 for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz ")}
  backend = tokenizers.Tokenizer(tokenizers.models.BPE({"<unk>": 0, "</s>": 1, **letters}, [], unk_token="<unk>"))
  backend.post_processor = tokenizers.processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
  backend.save(str(tmp_path / "tokenizer.json"))
  named = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>", "model_max_length": 13}
  (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **named}))
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  tokens = theirs(TEXTS, padding="max_length", truncation=True, return_tensors="np")["input_ids"]
  want = unit(vectors(there.get_text_features(torch.from_numpy(tokens))))
  assert distance(zoo.embed(tmp_path, TEXTS, batch_size=2), want) < 1e-5


@pytest.mark.parametrize("kind", ["T5", "UMT5", "Marian"])
def test_of_the_encoder_of_a_model_that_writes_too(kind, tmp_path):
  import tokenizers
  import torch
  import transformers

  shared = dict(vocab_size=31, d_model=12, decoder_start_token_id=0, pad_token_id=0)
  if kind == "Marian":
    towers = dict(encoder_layers=1, decoder_layers=1, encoder_attention_heads=3, decoder_attention_heads=3)
    config = transformers.MarianConfig(**shared, **towers, encoder_ffn_dim=9, decoder_ffn_dim=9)
    there = reference(transformers.MarianMTModel, config)
  else:
    config = getattr(transformers, f"{kind}Config")(**shared, d_kv=5, d_ff=9, num_layers=2, num_heads=3)
    there = reference(getattr(transformers, f"{kind}ForConditionalGeneration"), config)
  there.save_pretrained(tmp_path)
  there = type(there).from_pretrained(tmp_path)  # Marian's files do not have its positions.
  letters = {letter: i + 3 for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz ")}
  backend = tokenizers.Tokenizer(tokenizers.models.BPE({"<pad>": 0, "</s>": 1, "<unk>": 2, **letters}, []))
  backend.post_processor = tokenizers.processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
  backend.save(str(tmp_path / "tokenizer.json"))
  roles = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
  (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **roles}))
  batch = zoo.load_tokenizer(tmp_path)(TEXTS)
  tokens, valid = (torch.from_numpy(batch[name].astype(np.int64)) for name in ("tokens", "valid"))
  states = there.get_encoder()(tokens, attention_mask=valid).last_hidden_state.detach().numpy()
  want = (states * batch["valid"][..., None]).sum(1) / batch["valid"].sum(1, keepdims=True)
  assert distance(zoo.embed(tmp_path, TEXTS, batch_size=2), want) < 1e-5


@pytest.mark.parametrize("family", ["ViT", "Dinov2"])
def test_of_an_image_encoder(family, tmp_path):
  import transformers

  sizes = {name: size for name, size in PICTURE.items() if family == "ViT" or name != "intermediate_size"}
  there = reference(getattr(transformers, f"{family}Model"), getattr(transformers, f"{family}Config")(**sizes))
  there.save_pretrained(tmp_path)
  processor = transformers.ViTImageProcessorPil(size={"height": 21, "width": 21})
  want = vectors(there(prepared(processor, tmp_path)))
  assert distance(zoo.embed(tmp_path, pictures(), batch_size=2), want) < 1e-5
