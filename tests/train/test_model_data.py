"""Evaluators, training and zoo.embed give a model the same inputs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

import zoo
from tests.hub_folder import random_params
from zoo.config import loading as configs
from zoo.data import package_data
from zoo.errors import UserError
from zoo.evaluate import linear_probe, zero_shot
from zoo.hub.preprocessing import image_processor
from zoo.objectives.objective import Context
from zoo.preprocessing import as_float
from zoo.sharding import make_mesh
from zoo.train import model_data
from zoo.train.experiment import experiment

TEXT = dict(text_dim=6, text_depth=1, text_heads=3, max_length=11)
TOWER = dict(image_size=8, patch_size=4, image_dim=6, image_depth=1, image_heads=2)
CLIP = dict(family="clip", **TOWER, **TEXT, embed_dim=5, vocab_size=49408, read_at="eos", eos=49407)
VIT = dict(image_size=8, patch_size=4, dim=6, depth=1, num_heads=2)
ODD = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1.0, 2.0, 0.5]}
OF_CLIP = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 8}, "crop_size": 8}
OF_SIGLIP = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 8, "width": 8}}
PROCESSORS = {
  "CLIP": OF_CLIP,
  "larger before the crop": {**OF_CLIP, "size": {"shortest_edge": 13}, "resample": 2},
  "odd colours": {**OF_CLIP, **ODD},
  "whole numbers": {**OF_CLIP, "do_rescale": False},
  "plain": {**OF_CLIP, "do_normalize": False},
  "neither": {**OF_CLIP, "do_normalize": False, "do_rescale": False},
  "another factor": {**OF_CLIP, "rescale_factor": 0.01},
  "squashed": {**OF_SIGLIP, **ODD, "resample": 0},
}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
  """Images of many shapes in folders named after two classes; the class can hardly be seen."""
  folder, rng = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
  for name in ("cat", "dog"):
    (folder / "test" / name).mkdir(parents=True)
    for i in range(5):
      image = rng.integers(0, 256, (9 + 3 * i, 17, 4 if i == 1 else 3)).astype(np.uint8)
      Image.fromarray(image).save(folder / "test" / name / f"{i}.png")
  return folder


def section(folder, **options):
  return {"name": "labelled_images", "source": f"images:{folder}", "split": "test", **options}


def files(folder):
  return sorted((folder / "test").rglob("*.png"))


def raw(records):
  """The files' bytes in the order of the records, which is that of a hash, and the labels."""
  rows = [records.source[i] for i in range(len(records))]
  return [row["image"] for row in rows], np.array([row["label"] for row in rows])


def mild(model):
  """Parameters small enough that attention looks at more than one place."""
  return jax.tree.map(lambda x: 0.4 * x, random_params(model))


def published(folder, processor=None, family="clip", **sizes):
  """A random model as the hub has it, beside its preprocessor_config.json."""
  sizes = {**(CLIP if family == "clip" else {"family": family, **VIT}), **sizes}
  model = zoo.build(**sizes)
  zoo.save_hf(folder, model, mild(model))
  (folder / "preprocessor_config.json").unlink()
  if processor is not None:
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
  return folder


def pixels(model, records):
  return np.concatenate([as_float(jnp.asarray(records[i]["image"])[None], model) for i in range(len(records))])


@pytest.mark.parametrize("name", PROCESSORS)
def test_evaluators_see_the_pixels_of_the_processor(name, tmp_path, labelled):
  folder = published(tmp_path, PROCESSORS[name])
  model, _ = zoo.load(folder)
  for options in ({}, {"image_size": 8}):
    records = model_data.records_for(model, section(labelled, **options))
    want = zoo.load_processor(folder)(raw(records)[0])["image"]
    assert records[0]["image"].dtype == np.uint8
    np.testing.assert_allclose(pixels(model, records), want, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_model_keeps_its_preprocessing_through_every_format(name, tmp_path):
  folder = published(tmp_path / "hub", PROCESSORS[name])
  model, params = zoo.load(folder)
  assert image_processor(model) == zoo.load_processor(folder)
  zoo.save(tmp_path / "saved", model, params)
  saved, _ = zoo.load(tmp_path / "saved")
  zoo.save_hf(tmp_path / "again", saved, params)
  again, _ = zoo.load(tmp_path / "again")
  assert saved.preprocessing["image"] == again.preprocessing["image"] == model.preprocessing["image"]
  for place in ("saved", "again"):
    assert zoo.load_processor(tmp_path / place) == zoo.load_processor(folder)


def test_without_preprocessing_pixels_are_the_zoos_own(tmp_path, labelled):
  model = zoo.build("vit", **VIT)
  image = np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3)
  expected = jnp.asarray(image).astype(jnp.float32) / 127.5 - 1
  np.testing.assert_array_equal(as_float(jnp.asarray(image), model), expected)
  zoo.save_hf(tmp_path, model, random_params(model))
  theirs = zoo.load_processor(tmp_path)
  assert theirs.crop == (8, 8) and theirs.edge == 8
  np.testing.assert_allclose(theirs(image[0])["image"], image.astype(np.float32) / 127.5 - 1, atol=1e-6)
  zoo.save(tmp_path / "own", model, random_params(model))
  records = model_data.records_for(model, section(labelled))
  expected = zoo.load_processor(tmp_path / "own")(raw(records)[0])["image"]
  np.testing.assert_allclose(expected, pixels(model, records), atol=1e-6)


def test_zero_shot_is_what_embed_makes_of_the_same_files(tmp_path, labelled):
  folder = published(tmp_path, {**OF_CLIP, **ODD})
  model, params = zoo.load(folder)
  templates = ["a photo of a {}.", "A {}"]
  metrics = zero_shot.zero_shot(model, data=section(labelled), templates=templates, batch_size=4)(params)
  maker = zoo.embedder(folder)
  names = np.stack(
    [zoo.embed(maker, [template.format(name) for template in templates]).mean(0) for name in ("cat", "dog")]
  )
  names /= np.linalg.norm(names, axis=1, keepdims=True)
  right = (zoo.embed(maker, files(labelled)) @ names.T).argmax(1) == np.repeat([0, 1], 5)
  assert metrics["top1"] == right.mean()


def test_a_probe_of_a_dinov2_has_the_features_of_embed(tmp_path, labelled):
  folder = published(tmp_path, {**OF_CLIP, **ODD, "image_processor_type": "BitImageProcessor"}, "dinov2")
  model, params = zoo.load(folder)
  data = section(labelled)
  metrics = linear_probe.linear_probe(model, data=data, train_data=data, shots=2, repeats=2)(params)
  images, label = raw(model_data.records_for(model, data))
  rows = {"feature": zoo.embed(folder, images), "label": label}
  scores, _ = linear_probe.probed([rows], [rows], [2], 2, 0, 1.0)
  assert metrics["accuracy_2_shot"] == scores["accuracy_2_shot"]


def test_images_that_the_model_does_not_take_are_refused_before_it_runs(labelled):
  with pytest.raises(UserError, match="zero_shot: images are 16 x 16 x 3, the model takes 8 x 8 x 3"):
    zero_shot.zero_shot(zoo.build(**CLIP), data=section(labelled, image_size=16))


def test_pixels_that_nobody_described_are_refused(tmp_path, labelled):
  model, params = zoo.load(published(tmp_path))
  with pytest.raises(UserError, match="has no preprocessor_config.json.* Or set it"):
    zero_shot.zero_shot(model, data=section(labelled))(params)
  np.testing.assert_array_equal(as_float(jnp.ones((1, 8, 8, 3)), model), 1)  # Floats are ready.


TOKENIZERS = {
  "gpt2": "tokenizer gpt2 has 50257 tokens, the model has 49408",
  "bert": "tokenizer bert ends a text by 102, the model reads it at 49407",
  "bytes": "tokenizer bytes ends a text by 258, the model reads it at 49407",
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_that_is_not_the_models_is_refused(name, tmp_path, labelled):
  model, _ = zoo.load(published(tmp_path, OF_CLIP))
  with pytest.raises(UserError, match=f"zero_shot: {TOKENIZERS[name]}"):
    zero_shot.zero_shot(model, data=section(labelled), tokenizer=name)


def test_the_tokenizer_is_that_of_the_folder(tmp_path, labelled):
  folder = published(tmp_path, OF_CLIP, vocab_size=30522, eos=102)
  model, params = zoo.load(folder)
  with pytest.raises(UserError, match="zero_shot: the model's folder has no tokenizer"):
    zero_shot.zero_shot(model, data=section(labelled))
  (folder / "vocab.txt").write_text("\n".join(package_data.lines("vocab/bert.txt.xz")), encoding="utf-8")
  (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
  model, params = zoo.load(folder)
  evaluators = [zero_shot.zero_shot(model, data=section(labelled), tokenizer=name) for name in (None, "bert")]
  assert evaluators[0](params) == evaluators[1](params)
  (folder / "sub").mkdir()
  swapped = package_data.lines("vocab/bert.txt.xz")
  swapped[2000:9000] = swapped[2000:9000][::-1]
  (folder / "sub/vocab.txt").write_text("\n".join(swapped), encoding="utf-8")
  with pytest.raises(UserError, match="has other tokens than the model's own"):
    zero_shot.zero_shot(model, data=section(labelled), tokenizer=str(folder / "sub"))


def training(folder, labelled, **model):
  return {
    "seed": 0,
    "steps": 2,
    "batch_size": 2,
    "workdir": str(folder / "run"),
    "model": {"family": "vit", **VIT, "num_classes": 2, "epsilon": 1e-12, **model},
    "init": str(folder / "hub"),
    "objective": {"name": "classify"},
    "data": section(labelled),
    "optimizer": {"learning_rate": 1e-3},
    "mesh": {"data": 1},
    "sharding": "replicated",
    "eval": {"evaluators": {}},
  }


def filled_config(config):
  return experiment(ConfigDict(configs.with_defaults(config)), make_mesh({"data": 1}, jax.devices()[:1]))


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
  folder = tmp_path_factory.mktemp("vit")
  published(folder / "hub", {**OF_SIGLIP, **ODD, "image_processor_type": "ViTImageProcessor"}, "vit", epsilon=1e-12)
  return folder


def test_training_from_a_published_model_has_its_pixels(vit, labelled):
  config = training(vit, labelled)
  run = filled_config(config)
  batch = run.batches[0]
  assert run.model_with_kernels.preprocessing == run.model.preprocessing
  assert batch["image"].dtype == np.uint8 and batch["image"].shape[1:] == (8, 8, 3)
  params = jax.jit(run.init)(jax.random.key(0))["params"]
  ready = zoo.load_processor(vit / "hub")(list(batch["image"]))["image"]
  loss = jax.jit(run.loss)
  got, want = (loss(params, images, Context(0))[0] for images in (batch, {**batch, "image": ready}))
  np.testing.assert_allclose(got, want, rtol=1e-6)
  # Augmentation works on pixels from -1 to 1, and ends as the model wants them: here it changes nothing.
  config["data"]["augment"] = [{"name": "shift", "pixels": 0}]
  np.testing.assert_allclose(jax.jit(filled_config(config).loss)(params, batch, Context(0))[0], want, rtol=1e-5)


def test_a_run_goes_on_with_the_pixels_that_it_began_with(vit, labelled, tmp_path):
  config = ConfigDict(configs.with_defaults(training(vit, labelled)))
  model = filled_config(config).model
  run = tmp_path / "run"
  configs.save(model_data.with_preprocessing_of_model(config, model), run)
  config.init = "nowhere"  # What it began from is gone.
  again = model_data.with_preprocessing_of_run(config, run)
  configs.check_same_run(again, run)
  assert filled_config(again).model.preprocessing == model.preprocessing
  with pytest.raises(UserError, match="holds another model: model.preprocessing.image"):
    by_hand = {"preprocessing": {"image": {"mean": 0.5, "std": 0.5}}}
    changed = ConfigDict(configs.with_defaults(training(vit, labelled, **by_hand)))
    configs.check_same_run(model_data.with_preprocessing_of_run(changed, run), run)
  # A run of before models carried anything had the zoo's own pixels, and keeps them.
  configs.save(config, tmp_path / "old")
  assert (
    "image" not in filled_config(model_data.with_preprocessing_of_run(config, tmp_path / "old")).model.preprocessing
  )


def test_pixels_may_be_said_by_hand(vit, labelled):
  model = filled_config(training(vit, labelled, preprocessing={"image": {"mean": 0.5, "std": [0.25, 0.5, 1.0]}})).model
  image = np.array([[[[0, 51, 255]]]], np.uint8)
  np.testing.assert_allclose(as_float(jnp.asarray(image), model)[0, 0, 0], [-2, -0.6, 0.5], rtol=1e-6)
  assert image_processor(model) is None  # Size and fit are the pipeline's.
