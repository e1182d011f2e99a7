"""How a model's inputs are made: said by hand, and kept in files."""

import json

import jax.numpy as jnp
import pytest

import zoo
from tests.hub_folder import random_params
from zoo.errors import UserError
from zoo.preprocessing import as_float
from zoo.train.model_data import filled

VIT = dict(image_size=8, patch_size=4, dim=6, depth=1, num_heads=2)
MISTAKES = {
  "key": ({"images": {}}, "model.preprocessing has no 'images'. Did you mean 'image'?"),
  "entry": ({"image": {"means": 1}}, "model.preprocessing.image has no 'means'. Did you mean 'mean'?"),
  "zero": ({"image": {"std": [1, 0, 1]}}, r"image.std is \[1, 0, 1\]. It must be"),
  "kind": ({"image": {"mean": "white"}}, "image.mean is 'white'. It must be a number"),
  "nan": ({"image": {"scale": float("nan")}}, "image.scale is nan. It must be a number"),
  "half": ({"image": {"resize": 8}}, r"needs crop .which may be None\) and resample too\."),
  "tokenizer": ({"tokenizer": 3}, "tokenizer is 3. It must be a str: a name or a path"),
  "section": ({"image": 3}, "image is 3. It must be a mapping"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_by_hand_end_in_one_line(mistake):
  entries, message = MISTAKES[mistake]
  with pytest.raises(UserError, match=message):
    zoo.build("vit", **VIT, preprocessing=entries)


def test_the_number_of_colours_must_be_the_images():
  model = zoo.build("vit", **VIT, preprocessing={"image": {"mean": [1, 2], "std": 1}})
  with pytest.raises(UserError, match="image.mean has 2 numbers, images have 3 channels"):
    as_float(jnp.zeros((1, 8, 8, 3), jnp.uint8), model)


def test_preprocessing_is_no_part_of_what_a_model_is():
  plain = zoo.build("vit", **VIT)
  other = zoo.build("vit", **VIT, preprocessing={"image": {"mean": 0.5, "std": 0.25}})
  assert plain == other and hash(plain) == hash(other) and plain.spec == other.spec
  assert other.preprocessing == {"image": {"mean": 0.5, "std": 0.25}} and plain.preprocessing == {}
  assert other.clone().preprocessing == other.preprocessing


def test_a_whisper_keeps_how_its_sounds_are_made(tmp_path):
  model = zoo.build("whisper", vocab_size=31, source_length=50, max_length=15, dim=12, depth=1, num_heads=3)
  zoo.save_hf(tmp_path / "hub", model, random_params(model))
  assert not (tmp_path / "hub/preprocessor_config.json").exists()  # Nobody knows.
  entries = {"feature_extractor_type": "WhisperFeatureExtractor", "chunk_length": 1, "feature_size": 80, "n_fft": 320}
  (tmp_path / "hub/preprocessor_config.json").write_text(json.dumps(entries))
  model, params = zoo.load(tmp_path / "hub")
  zoo.save(tmp_path / "own", model, params)
  zoo.save_hf(tmp_path / "again", *zoo.load(tmp_path / "own"))
  processors = [zoo.load_processor(tmp_path / name) for name in ("hub", "own", "again")]
  assert processors[0] == processors[1] == processors[2] and processors[0].window == 320


def test_a_processor_that_the_zoo_does_not_know_is_told_when_it_is_needed(tmp_path):
  model = zoo.build("vit", **VIT)
  zoo.save_hf(tmp_path, model, random_params(model))
  (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "LlavaNextImageProcessor"}')
  model, params = zoo.load(tmp_path)
  with pytest.raises(UserError, match="no image_processor_type 'LlavaNextImageProcessor'"):
    as_float(jnp.zeros((1, 8, 8, 3), jnp.uint8), model)
  zoo.save_hf(tmp_path / "again", model, params)
  assert not (tmp_path / "again/preprocessor_config.json").exists()


def test_save_hf_leaves_a_processor_alone_that_the_model_knows_nothing_of(tmp_path):
  model = zoo.build("vit", **VIT)
  (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "ViTImageProcessor", "size": 8}')
  zoo.save_hf(tmp_path, model, random_params(model))
  assert zoo.load_processor(tmp_path).edge == (8, 8)
  by_hand = zoo.build("vit", **VIT, preprocessing={"image": {"mean": 0.25, "std": 0.5}})
  zoo.save_hf(tmp_path, by_hand, random_params(by_hand))
  processor = zoo.load_processor(tmp_path)
  assert (processor.mean, processor.std, processor.crop, processor.edge) == ((0.25,) * 3, (0.5,) * 3, (8, 8), 8)


def test_sections_within_sections_have_the_models_tokenizer_unless_they_name_one():
  documents = {"name": "documents", "source": "text:here"}
  options = {"tokenizer": "gpt2", "image_size": 8, "max_length": 5}
  assert filled({"name": "packed", "data": documents}, options) == {
    "name": "packed",
    "max_length": 512,
    "data": {**documents, "tokenizer": "gpt2", "max_length": 512},
  }
  with_bytes = {**documents, "tokenizer": "bytes"}
  members = {"name": "mixture", "rates": {}, "members": {"one": documents, "other": with_bytes}}
  assert filled(members, options)["members"] == {
    "one": {**documents, "tokenizer": "gpt2", "max_length": 512},
    "other": {**with_bytes, "max_length": 512},
  }
  pairs = {"name": "image_text", "source": "images:here"}
  assert filled(pairs, options) == {**pairs, **options}
