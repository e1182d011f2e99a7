"""Zero-shot scores of published models are those of the reference's own processor, tokenizer and model."""

import json

import numpy as np
import pytest
from PIL import Image

import zoo
from tests.convert.parity import distance
from tests.convert.test_embed import PICTURE, TOWER, reference, unit, vectors
from zoo.evaluate import ranking, zero_shot

NAMES = ["A Cat", "dog", "red ball"]
TEMPLATES = ["a photo of a {}", "{}"]
ODD = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.9, 1.7, 0.5]}


@pytest.fixture
def labelled(tmp_path):
  """A folder of images of many shapes for each name."""
  rng = np.random.default_rng(0)
  for number, name in enumerate(NAMES):
    (tmp_path / "data/test" / name).mkdir(parents=True)
    for i in range(4):
      array = rng.integers(0, 256, (25 + 9 * i, 31 + 5 * number, 3)).astype(np.uint8)
      Image.fromarray(array).save(tmp_path / "data/test" / name / f"{i}.png")
  return tmp_path / "data"


def scores(monkeypatch, folder, labelled, **options):
  """What the evaluator ranks: [images, classes], and the images' bytes."""
  scores = []
  monkeypatch.setattr(ranking, "ranks", lambda ranked, right: scores.append(ranked) or np.ones(len(ranked)))
  model, params = zoo.load(folder)
  data = {"name": "labelled_images", "source": f"images:{labelled}", "split": "test"}
  zero_shot.zero_shot(model, data=data, class_names=NAMES, templates=TEMPLATES, batch_size=5, **options)(params)
  return np.concatenate(scores)


def expected(there, processor, labelled, tokens):
  """The same by the reference; `tokens` are of each name in each template."""
  import torch

  from zoo.data.sources import open_source

  source = open_source(f"images:{labelled}", "test")
  images = [zoo.hub.processors.opened(source[i]["image"], "image") for i in range(len(source))]
  pixels = torch.from_numpy(np.concatenate([processor(image, return_tensors="np")["pixel_values"] for image in images]))
  names = unit(vectors(there.get_text_features(**tokens)))
  names = unit(names.reshape(len(NAMES), len(TEMPLATES), -1).mean(1))
  return unit(vectors(there.get_image_features(pixels))) @ names.T


TEXTS = [template.format(name) for name in NAMES for template in TEMPLATES]
CLIP = {
  "as published": {},
  "odd colours, larger before the crop": {**ODD, "size": {"shortest_edge": 25}, "resample": 2},
  "neither scaled nor shifted": {"do_rescale": False, "do_normalize": False},
}


@pytest.mark.parametrize("case", CLIP)
def test_of_clip(case, tmp_path, labelled, monkeypatch):
  import torch
  import transformers

  text = dict(**TOWER, vocab_size=49408, max_position_embeddings=77, eos_token_id=49407)
  there = reference(
    transformers.CLIPModel, transformers.CLIPConfig(text_config=text, vision_config=PICTURE, projection_dim=10)
  )
  options = {"size": {"shortest_edge": 21}, "crop_size": {"height": 21, "width": 21}, **CLIP[case]}
  processor = transformers.CLIPImageProcessorPil(**options)
  there.save_pretrained(tmp_path)
  processor.save_pretrained(tmp_path)
  batch = zoo.load_tokenizer("clip")(TEXTS)
  tokens = {"input_ids": torch.from_numpy(batch["tokens"].astype(np.int64))}
  want = expected(there, processor, labelled, {**tokens, "attention_mask": torch.from_numpy(batch["valid"])})
  assert distance(scores(monkeypatch, tmp_path, labelled), want) < 1e-5


def test_of_siglip(tmp_path, labelled, monkeypatch):
  import tokenizers
  import transformers

  config = transformers.SiglipConfig(
    text_config=dict(**TOWER, vocab_size=40, max_position_embeddings=29), vision_config=PICTURE
  )
  there = reference(transformers.SiglipModel, config)
  processor = transformers.SiglipImageProcessorPil(size={"height": 21, "width": 21}, resample=1, **ODD)
  there.save_pretrained(tmp_path)
  processor.save_pretrained(tmp_path)
  letters = {letter: i + 2 for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz ")}
  backend = tokenizers.Tokenizer(tokenizers.models.BPE({"<unk>": 0, "</s>": 1, **letters}, [], unk_token="<unk>"))
  backend.normalizer = tokenizers.normalizers.Lowercase()
  backend.post_processor = tokenizers.processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
  backend.save(str(tmp_path / "tokenizer.json"))
  named = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>", "model_max_length": 29}
  (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **named}))
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  ids = theirs(TEXTS, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
  want = expected(there, processor, labelled, {"input_ids": ids})
  assert distance(scores(monkeypatch, tmp_path, labelled), want) < 1e-5


@pytest.mark.parametrize("options", [{}, ODD, {"do_rescale": False}, {"do_normalize": False}])
def test_a_processor_that_save_hf_writes_is_read_by_the_reference(options, tmp_path, labelled):
  import transformers

  theirs = transformers.BitImageProcessorPil(
    size={"shortest_edge": 17}, crop_size={"height": 13, "width": 14}, **options
  )
  sizes = {name: size for name, size in PICTURE.items() if name != "intermediate_size"}
  there = reference(transformers.Dinov2Model, transformers.Dinov2Config(**sizes, mlp_ratio=1))
  there.save_pretrained(tmp_path / "hub")
  theirs.save_pretrained(tmp_path / "hub")
  zoo.save_hf(tmp_path / "again", *zoo.load(tmp_path / "hub"))
  read = transformers.AutoImageProcessor.from_pretrained(tmp_path / "again", backend="pil")
  image = Image.open(labelled / "test/dog/1.png")
  got, want = (one(image, return_tensors="np")["pixel_values"] for one in (read, theirs))
  np.testing.assert_array_equal(got, want)
