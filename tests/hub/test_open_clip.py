"""Folders in open_clip's layout; tests/convert/test_open_clip.py compares their numbers with a reference."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import zoo
from tests.hub_folder import published_bert, random_params
from zoo.build import sizes_of
from zoo.convert.rules.options import Options
from zoo.data.tokenizers.open_clip import CONFIG, is_open_clip
from zoo.errors import UserError
from zoo.hub import open_clip
from zoo.hub.open_clip import FILES
from zoo.hub.preprocessing import processor_of
from zoo.layers.stack import unstack_layers
from zoo.train.model_data import preprocessing_of_source
from zoo.tree import flatten

VISION = dict(image_size=21, layers=1, width=12, head_width=4, patch_size=7)
TEXT = dict(context_length=9, vocab_size=49408, width=15, heads=5, layers=1)
MODEL = dict(embed_dim=10, vision_cfg=VISION, text_cfg=TEXT)


def write(folder, model=MODEL, **preprocess):
  (folder / CONFIG).write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocess}))
  return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """A folder of open_clip, and the parameters in it."""
  folder = write(tmp_path_factory.mktemp("open_clip"))
  model = zoo.build("clip", **open_clip.sizes(Options({"model_cfg": MODEL}, "config")))
  params = random_params(model)
  flat, tensors = flatten(unstack_layers(params)), {}
  for rule in open_clip.rules(sizes_of(model)):
    tensors[rule.theirs] = rule.write(flat[rule.ours], tensors.get(rule.theirs))
  save_file({name: np.array(array, order="C") for name, array in tensors.items()}, folder / FILES[0])
  return folder, flat


def same(params, flat):
  read = flatten(unstack_layers(params))
  assert read.keys() == flat.keys() and all(np.array_equal(read[path], flat[path]) for path in flat)


@pytest.mark.parametrize(
  "rename, name", [("{}", FILES[1]), ("{}", FILES[2]), ("module.{}", FILES[0]), ("text.{}", FILES[0])], ids=str
)
def test_files_and_arrays_have_other_names_too(rename, name, saved, tmp_path):
  folder, flat = saved
  tensors = load_file(folder / FILES[0])
  kept = ("visual", "logit") if rename.startswith("text") else ()
  tensors = {(theirs if theirs.startswith(kept or "?") else rename.format(theirs)): x for theirs, x in tensors.items()}
  tensors = {theirs: x.reshape(1) if theirs.endswith("logit_scale") else x for theirs, x in tensors.items()}
  save_file(tensors, write(tmp_path) / name)
  same(zoo.load(tmp_path)[1], flat)


def test_the_hubs_layout_goes_first_where_it_is_whole(saved, tmp_path):
  published_bert(tmp_path)
  write(tmp_path)
  assert not is_open_clip(tmp_path) and zoo.load(tmp_path)[0].spec["family"] == "bert"
  (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
  assert is_open_clip(tmp_path)


def test_a_clip_of_open_clip_is_written_as_the_hub_has_it(saved, tmp_path):
  model, params = zoo.load(saved[0])
  zoo.save_hf(tmp_path, model, params)
  again, read = zoo.load(tmp_path)
  same(read, saved[1])
  assert sizes_of(again) == sizes_of(model)


REFUSED = {
  "CoCa": ({"multimodal_cfg": {"width": 12}}, "multimodal_cfg is"),
  "timm": ({"vision_cfg": {**VISION, "timm_model_name": "convnext_base"}}, "timm_model_name is 'convnext_base'"),
  "ResNet": ({"vision_cfg": {**VISION, "layers": [3, 4, 6, 3]}}, r"layers is \[3, 4, 6, 3\].*no ModifiedResNet"),
  "transformers": ({"text_cfg": {**TEXT, "hf_model_name": "roberta-base"}}, "hf_model_name is 'roberta-base'"),
  "pool": ({"vision_cfg": {**VISION, "pool_type": "avg"}}, "vision_cfg: pool_type is 'avg'"),
  "last": ({"text_cfg": {**TEXT, "pool_type": "last"}}, "text_cfg: pool_type is 'last'"),
  "eps": ({"text_cfg": {**TEXT, "norm_kwargs": {"eps": 0.1}}}, r"norm_kwargs differ, \[1e-05, 0.1\]"),
  "oblong": ({"vision_cfg": {**VISION, "image_size": [21, 28]}}, r"image_size is \[21, 28\]"),
  "unknown": ({"vision_cfg": {**VISION, "rope": True}}, r"vision_cfg has 1 unknown option.*rope=True"),
  "ratio": ({"text_cfg": {**TEXT, "mlp_ratio": float("nan")}}, "mlp_ratio is nan. It must be a number"),
  "width": ({"embed_dim": 0}, "embed_dim is 0. It must be an int of at least 1"),
  "layers": ({"text_cfg": {**TEXT, "layers": 10**6}}, "layers is 1000000, but the file holds only"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_clip_of_the_zoo_is_refused_by_name(kind, saved, tmp_path):
  change, message = REFUSED[kind]
  (tmp_path / FILES[0]).symlink_to(saved[0] / FILES[0])
  with pytest.raises(UserError, match=message):
    zoo.load(write(tmp_path, {**MODEL, **change}))


def test_nulls_and_entries_that_the_user_names_are_passed_over(saved, tmp_path):
  (tmp_path / FILES[0]).symlink_to(saved[0] / FILES[0])
  write(tmp_path, {**MODEL, "vision_cfg": {**VISION, "rope": None, "qk_norm": True}})
  with pytest.warns(UserWarning, match="rope=None: ignored"):
    same(zoo.load(tmp_path, ignore=("model_cfg.vision_cfg.qk_norm",))[1], saved[1])


def test_weights_that_are_not_there_or_do_not_fit_are_told(saved, tmp_path):
  write(tmp_path)
  with pytest.raises(UserError, match="has none of open_clip_model.safetensors, .*pickled weights"):
    zoo.load(tmp_path)
  (tmp_path / FILES[0]).symlink_to(saved[0] / FILES[0])
  with pytest.raises(UserError, match=r"visual.positional_embedding \(10, 12\) instead of \(17, 12\)"):
    zoo.load(write(tmp_path, {**MODEL, "vision_cfg": {**VISION, "image_size": 28}}))


@pytest.mark.parametrize(
  "text, preprocess, message",
  [
    ({"tokenizer_kwargs": {"clean": "whitespace"}}, {}, "clean is 'whitespace'"),
    ({"tokenizer_mode": "clips"}, {}, "tokenizer_mode is 'clips'"),
    ({"vocab_size": 100}, {}, "vocab_size is 100, but CLIP's tokenizer has 49408"),
    ({}, {"resize_mode": "stretch"}, "resize_mode is 'stretch'"),
    ({}, {"interpolation": "nearest"}, "interpolation is 'nearest'"),
    ({}, {"std": [1, 0, 1]}, r"std is \[1, 0, 1\]"),
    ({}, {"mean": [float("nan"), 0, 10**400]}, r"mean is \[nan, 0, 1000"),
  ],
)
def test_texts_and_pixels_that_cannot_be_made_are_refused_by_name(text, preprocess, message, tmp_path):
  write(tmp_path, {**MODEL, "text_cfg": {**TEXT, **text}}, **preprocess)
  with pytest.raises(UserError, match=message):
    zoo.load_tokenizer(tmp_path)
    zoo.load_processor(tmp_path)


def test_texts_are_cleaned_as_the_folder_says(tmp_path):
  plain = zoo.load_tokenizer(write(tmp_path))
  assert plain.max_length == 9 and zoo.load_tokenizer("clip").max_length == 77
  bare = zoo.load_tokenizer(
    write(tmp_path, {**MODEL, "text_cfg": {**TEXT, "tokenizer_kwargs": {"clean": "canonicalize"}}})
  )
  np.testing.assert_array_equal(bare("A_cat, sleeping!")["tokens"], plain("a  cat sleeping")["tokens"])


def test_the_middle_is_cut_as_rounded_and_what_is_missing_is_filled(tmp_path):
  picture = Image.fromarray(np.arange(24 * 21 * 3, dtype=np.uint8).reshape(24, 21, 3))
  options = dict(mean=[0, 0, 0], std=[1, 1, 1], fill_color=51)
  image = zoo.load_processor(write(tmp_path, **options))(picture)["image"][0]
  np.testing.assert_allclose(image, np.asarray(picture)[2:23] / 255, atol=1e-6)  # 3 lines too many: 2 before, 1 after.
  image = zoo.load_processor(write(tmp_path, **options, resize_mode="longest"))(picture)["image"][0]
  assert image.shape == (21, 21, 3)
  np.testing.assert_allclose(image[:, [0, 19, 20]], 0.2, atol=1e-6)  # 18 columns are left: 1 before, 2 after.
  assert image[:, 1:19].std() > 0.1


def test_a_model_carries_how_its_pixels_and_texts_are_made(saved):
  folder, model = saved[0], zoo.load(saved[0])[0]
  processor = zoo.load_processor(folder)
  assert (
    processor_of(model) == processor and processor.rounds and preprocessing_of_source(folder) == model.preprocessing
  )
  tokenizer = zoo.load_tokenizer(folder)
  again = pickle.loads(pickle.dumps(tokenizer))
  assert model.preprocessing["tokenizer"] == tokenizer.name == str(folder) and again.max_length == 9
  np.testing.assert_array_equal(again("a &amp; b")["tokens"], zoo.load_tokenizer("clip")("a & b")["tokens"])
