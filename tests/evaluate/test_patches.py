"""Models of images of any shape are evaluated by their patches."""

import json
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import zoo
from tests.train.test_model_data import ODD, TEXT, TOWER, files, labelled, mild, raw, section
from zoo.data import package_data
from zoo.errors import UserError
from zoo.evaluate import retrieval, zero_shot
from zoo.preprocessing import as_float
from zoo.train import model_data

__all__ = ["labelled"]  # A fixture.


@pytest.fixture(scope="module")
def siglip2(tmp_path_factory):
  folder = tmp_path_factory.mktemp("siglip2")
  entries = {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 4, "max_num_patches": 7, **ODD}
  model = zoo.build("siglip2", **TOWER, **TEXT, vocab_size=30522)
  zoo.save_hf(folder, model, mild(model))
  (folder / "preprocessor_config.json").write_text(json.dumps(entries))
  (folder / "vocab.txt").write_text("\n".join(package_data.lines("vocab/bert.txt.xz")), encoding="utf-8")
  (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
  return folder


def test_a_siglip_2_of_any_shape_is_evaluated_by_its_patches(siglip2, labelled):
  model, params = zoo.load(siglip2)
  metrics = zero_shot.zero_shot(model, data=section(labelled), templates="{}", batch_size=4)(params)
  maker = zoo.embedder(siglip2)
  images, names = zoo.embed(maker, files(labelled)), zoo.embed(maker, ["cat", "dog"])
  assert abs(names[0] - names[1]).max() > 1e-3
  assert metrics["top1"] == ((images @ names.T).argmax(1) == np.repeat([0, 1], 5)).mean()
  records = model_data.records_for(model, section(labelled))
  assert records[3]["image"]["patches"].dtype == np.uint8
  got = as_float(jax.tree.map(lambda x: jnp.asarray(x)[None], records[3]["image"]), model)
  want = zoo.load_processor(siglip2)(raw(records)[0][3])["image"]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), dict(got), want)
  with pytest.raises(UserError, match="A siglip2 takes patches"):
    model_data.records_for(model, section(labelled), training=True)
  anew = model.clone(preprocessing_json="{}")  # As zoo.build makes it.
  with pytest.raises(UserError, match="no data pipeline provides for training. Train a model of one image_size"):
    model_data.records_for(anew, section(labelled), training=True)
  with pytest.raises(UserError, match="carries no processor for them"):
    model_data.records_for(anew, section(labelled))


def test_retrieval_compares_what_embed_makes_of_images_and_captions(siglip2, tmp_path):
  rng, texts = np.random.default_rng(1), ["two cats", "A red ball.", "grass", "one dog and its shadow"]
  with tarfile.open(tmp_path / "pairs.tar", "w") as tar:
    for i, text in enumerate(texts):
      Image.fromarray(rng.integers(0, 256, (9 + 2 * i, 13, 3)).astype(np.uint8)).save(tmp_path / f"{i}.png")
      (tmp_path / f"{i}.txt").write_text(text)
      for ending in ("png", "txt"):
        tar.add(tmp_path / f"{i}.{ending}", f"{i}.{ending}")
  data = {"name": "image_text", "source": f"webdataset:{tmp_path}/pairs.tar"}
  model, params = zoo.load(siglip2)
  metrics = retrieval.retrieval(model, data=data, batch_size=3, at=(1, 2))(params, tmp_path / "out")
  maker = zoo.embedder(siglip2)
  scores = zoo.embed(maker, [tmp_path / f"{i}.png" for i in range(4)]) @ zoo.embed(maker, texts).T
  for way, score in (("image_to_text", scores), ("text_to_image", scores.T)):
    for k in (1, 2):
      assert metrics[f"{way}_r{k}"] == np.mean([(row > row[i]).sum() < k for i, row in enumerate(score)])
  assert (tmp_path / "out/retrieval.png").stat().st_size > 1000
