import functools
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import zoo
from tests.hub_folder import edit_config, published_bert, random_params
from zoo.data import package_data
from zoo.errors import UserError

TEXTS = ["lovely", "The weather is lovely today, and it will be tomorrow.", "", "He drove to the stadium."]


def write(folder, name, content):
  (folder / name).parent.mkdir(exist_ok=True)
  (folder / name).write_text(json.dumps(content))


def with_vocabulary(folder):
  pieces = package_data.lines("vocab/bert.txt.xz")
  (folder / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
  """A sentence encoder's folder, and hidden(text, length=None) -> states [tokens, dim] of a text alone, unpadded."""
  folder = tmp_path_factory.mktemp("encoder")
  model, params = published_bert(folder, vocab_size=30522, max_length=37, head=None)
  with_vocabulary(folder)
  tokenizer, run = zoo.load_tokenizer(folder), jax.jit(model.apply)

  @functools.cache
  def hidden(text, length=None):
    return np.asarray(run({"params": params}, tokenizer([text], length=length)["tokens"])["hidden"][0])

  return folder, hidden


@pytest.fixture
def folder(encoder, tmp_path):
  return shutil.copytree(encoder[0], tmp_path / "encoder")


def sentence_transformer(folder, pooling, *modules):
  kinds = ["Transformer", "Pooling", *modules]
  paths = ["", *(f"{i}_{kind}" for i, kind in enumerate(kinds) if i)]
  listed = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in zip(paths, kinds)]
  write(folder, "modules.json", listed)
  write(folder, "1_Pooling/config.json", {"word_embedding_dimension": 6, **pooling})


def test_without_a_word_about_it_a_text_is_the_mean_of_its_tokens(encoder):
  folder, hidden = encoder
  vectors = zoo.embed(folder, TEXTS, batch_size=3)
  assert vectors.shape == (4, 6) and vectors.dtype == np.float32
  np.testing.assert_allclose(vectors, [hidden(text).mean(0) for text in TEXTS], atol=2e-6)


def test_a_text_has_the_same_vector_in_any_company(encoder):
  make = zoo.embedder(encoder[0])
  together = zoo.embed(make, TEXTS, batch_size=2)
  np.testing.assert_allclose(together, np.concatenate([zoo.embed(make, text) for text in TEXTS]), atol=2e-6)


WAYS = {
  "cls": ("pooling_mode_cls_token", lambda h: h[0]),
  "max": ("pooling_mode_max_tokens", lambda h: h.max(0)),
  "mean": ("pooling_mode_mean_tokens", lambda h: h.mean(0)),
  "mean_sqrt_len_tokens": ("pooling_mode_mean_sqrt_len_tokens", lambda h: h.sum(0) / np.sqrt(len(h))),
  "weightedmean": ("pooling_mode_weightedmean_tokens", lambda h: np.average(h, 0, np.arange(1, len(h) + 1))),
  "lasttoken": ("pooling_mode_lasttoken", lambda h: h[-1]),
}


@pytest.mark.parametrize("way", WAYS)
def test_pools_as_the_folder_says_or_the_caller(way, encoder, folder):
  (whole, hidden), (key, formula) = encoder, WAYS[way]
  sentence_transformer(folder, {key: True})
  want = [formula(hidden(text)) for text in TEXTS]
  np.testing.assert_allclose(zoo.embed(folder, TEXTS), want, rtol=1e-5, atol=5e-6)
  np.testing.assert_allclose(zoo.embed(whole, TEXTS, pooling=way), want, rtol=1e-5, atol=5e-6)
  write(folder, "1_Pooling/config.json", {"pooling_mode": way})
  np.testing.assert_allclose(zoo.embed(folder, TEXTS), want, rtol=1e-5, atol=5e-6)


def test_the_encoder_may_have_a_folder_of_its_own_as_old_versions_wrote_it(encoder, folder):
  sentence_transformer(folder, {"pooling_mode_cls_token": True}, "Normalize")
  files = [path for path in folder.iterdir() if path.is_file() and path.name != "modules.json"]
  (folder / "0_Transformer").mkdir()
  for path in files:
    path.rename(folder / "0_Transformer" / path.name)
  listed = json.loads((folder / "modules.json").read_text())
  write(folder, "modules.json", [listed[0] | {"path": "0_Transformer"}, *listed[1:]])
  want = [encoder[1](text)[0] for text in TEXTS]
  want = [vector / np.linalg.norm(vector) for vector in want]
  np.testing.assert_allclose(zoo.embed(folder, TEXTS), want, rtol=1e-5, atol=5e-6)
  model, _ = zoo.load(folder / "0_Transformer", head="none")
  assert zoo.load(folder, head="none")[0] == model
  assert len(zoo.load_tokenizer(folder)(TEXTS)["tokens"]) == len(TEXTS)
  assert model.preprocessing["sentence"] | {"pooling": ["cls"], "unit": True} == model.preprocessing["sentence"]


def test_every_step_of_the_folder_is_taken(encoder, folder):
  from safetensors.numpy import save_file

  sentence_transformer(folder, {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "Dense", "Normalize")
  write(folder, "2_Dense/config.json", {"in_features": 12, "out_features": 5, "bias": True,
                                        "activation_function": "torch.nn.modules.activation.Tanh"})  # fmt: skip
  rng = np.random.default_rng(0)
  kernel, bias = rng.normal(size=(5, 12)).astype(np.float32), rng.normal(size=5).astype(np.float32)
  save_file({"linear.weight": kernel, "linear.bias": bias}, folder / "2_Dense/model.safetensors")
  write(folder, "sentence_bert_config.json", {"max_seq_length": 6, "do_lower_case": False})
  write(folder, "config_sentence_transformers.json", {"prompts": {"query": "find "}, "default_prompt_name": "query"})
  _, hidden = encoder
  states = [hidden(f"find {text}", length=6 if len(text) > 9 else None) for text in TEXTS]
  want = [np.tanh(kernel @ np.concatenate([h[0], h.mean(0)]) + bias) for h in states]
  want = [vector / np.linalg.norm(vector) for vector in want]
  np.testing.assert_allclose(zoo.embed(folder, TEXTS), want, rtol=1e-5, atol=5e-6)
  assert abs(np.linalg.norm(zoo.embed(folder, TEXTS, unit=False), axis=1) - 1).min() > 1e-3
  assert not np.allclose(zoo.embed(folder, TEXTS, prompt=""), want)


MISTAKES = {
  "module": (
    "modules.json",
    [{"type": "sentence_transformers.models.Transformer", "path": ""}, {"type": "custom.Pooling", "path": "1"}],
    "no module 'custom.Pooling'",
  ),
  "escape": ("modules.json", [{"type": "a.Transformer", "path": "../x"}], "a folder beside that file"),
  "half": ("modules.json", [{"type": "a.Transformer", "path": "\ud83d"}], "a folder beside that file"),
  "other": ("modules.json", [{"type": "a.CLIPModel", "path": ""}], "does not begin with a Transformer"),
  "object": ("modules.json", {}, "modules.json holds a dict, not a list"),
  "pooling": ("1_Pooling/config.json", {"pooling_mode": "median"}, "pooling_mode is 'median'"),
  "nothing": ("1_Pooling/config.json", {}, "enables no pooling mode"),
  "option": ("1_Pooling/config.json", {"pooling_mode": "cls", "layer": 3}, "layer=3"),
  "prompt": ("config_sentence_transformers.json", {"default_prompt_name": "a"}, "default_prompt_name is 'a'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_folders_that_ask_for_what_is_not_there_end_in_one_line(mistake, folder):
  sentence_transformer(folder, {"pooling_mode": "cls"})
  name, content, message = MISTAKES[mistake]
  write(folder, name, content)
  with pytest.raises(UserError, match=message):
    zoo.embed(folder, TEXTS)


def test_callers_mistakes_end_in_one_line(encoder):
  make = zoo.embedder(encoder[0])
  image = np.zeros((3, 3, 3), np.uint8)
  nan = jax.tree.map(lambda x: x * np.nan, make.params)
  broken = type(make)(make.folder, make.encoder, make.model, nan)
  for call, message in {
    (lambda: zoo.embed(make, [])): "items is empty",
    (lambda: zoo.embed(make, ["a", image])): "items mixes texts and images",
    (lambda: zoo.embed(make, "a", pooling="median")): "pooling is 'median'. It may be: cls, max",
    (lambda: zoo.embed(make, "a", batch_size=0)): "batch_size is 0",
    (lambda: zoo.embed(make, "a", max_length=0)): "max_length is 0",
    (lambda: zoo.embed(make, "a", truncate_dim=0)): "truncate_dim is 0",
    (lambda: zoo.embed(make, image)): "a bert does not embed images. Give it texts",
    (lambda: zoo.embed(broken, ["a", "b"])): "the vectors of 2 of 2 items are nan. The weights are damaged",
  }.items():
    with pytest.raises(UserError, match=message):
      call()


def test_an_encoder_of_texts_alone_takes_the_names_of_images(encoder, tmp_path):
  (tmp_path / "cat.jpg").touch()
  assert zoo.embed(encoder[0], [str(tmp_path / "cat.jpg")]).shape == (1, 6)


def test_images_and_texts_of_a_clip_share_a_space(tmp_path):
  model = zoo.build(
    "clip", image_size=8, patch_size=4, image_dim=6, image_depth=1, image_heads=2, text_dim=6, text_depth=1,
    text_heads=3, embed_dim=5, vocab_size=49408, max_length=77, eos=49407, read_at="eos",
  )  # fmt: skip
  params = random_params(model)
  zoo.save_hf(tmp_path, model, params)
  options = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 8}, "crop_size": 8}
  write(tmp_path, "preprocessor_config.json", options)
  rng = np.random.default_rng(0)
  pictures = [Image.fromarray(rng.integers(0, 256, (9 + i, 12, 3)).astype(np.uint8)) for i in range(3)]
  images, texts = zoo.embed(tmp_path, pictures, batch_size=2), zoo.embed(tmp_path, ["a photo of a cat", "a"])
  assert images.shape == (3, 5) and texts.shape == (2, 5)
  np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, rtol=1e-5)
  array = zoo.load_processor(tmp_path)(pictures[:1])["image"]
  want = jax.jit(functools.partial(model.apply, method="encode_image"))({"params": params}, array)
  np.testing.assert_allclose(images[:1], want, atol=2e-6)
  tokens = zoo.load_tokenizer("clip")(["a photo of a cat"])["tokens"]
  want = jax.jit(functools.partial(model.apply, method="encode_text"))({"params": params}, tokens)
  np.testing.assert_allclose(texts[:1], want, atol=2e-6)
  path = tmp_path / "a cat.PNG"
  pictures[0].save(path)
  make = zoo.embedder(tmp_path)
  for items in (str(path), ["a cat", str(path)], "gone/cat.PNG"):
    with pytest.raises(UserError, match=r"cat\.PNG' is the path of an image, .* Give .* pathlib\.Path\('.*cat\.PNG'\)"):
      zoo.embed(make, items)
  np.testing.assert_allclose(zoo.embed(make, path), images[:1], atol=2e-6)
  assert zoo.embed(make, "a dog.png").shape == (1, 5)  # No file is called so, and several words are a text.


def test_images_of_a_vit_are_its_pooled_output(tmp_path):
  model = zoo.build("vit", image_size=8, patch_size=4, dim=6, depth=1, num_heads=2, num_classes=3, epsilon=1e-12)
  zoo.save_hf(tmp_path, model, random_params(model))
  write(tmp_path, "preprocessor_config.json", {"image_processor_type": "ViTImageProcessor", "size": 8})
  image = np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype(np.uint8)
  vectors = zoo.embed(tmp_path, image)
  array = zoo.load_processor(tmp_path)(image)["image"]
  want = jax.jit(model.apply)({"params": zoo.load(tmp_path)[1]}, array)["pooled"]
  np.testing.assert_allclose(vectors, want, rtol=1e-5, atol=2e-6)
  np.testing.assert_allclose(np.linalg.norm(zoo.embed(tmp_path, [image], unit=True)), 1, rtol=1e-5)
  (tmp_path / "a.png").touch()
  with pytest.raises(UserError, match="Give images as pathlib.Path"):
    zoo.embed(tmp_path, str(tmp_path / "a.png"))
  with pytest.raises(UserError, match="a vit does not embed texts"):
    write(tmp_path, "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    with_vocabulary(tmp_path)
    zoo.embed(tmp_path, "a")


def test_masks_are_filled_with_the_likeliest_words(tmp_path):
  model, params = published_bert(tmp_path, vocab_size=30522, max_length=20)
  with_vocabulary(tmp_path)
  texts = ["The [MASK] is lovely [MASK].", "[MASK]!"]
  vectors = zoo.fill_mask(tmp_path, texts, best=3)
  assert [len(masks) for masks in vectors] == [2, 1]
  batch = zoo.load_tokenizer(tmp_path)(texts[:1])
  logits = np.asarray(jax.jit(model.apply)({"params": params}, batch["tokens"])["mlm"][0])
  for place, guesses in zip((2, 5), vectors[0]):
    want = np.argsort(-logits[place])[:3]
    assert [guess.token for guess in guesses] == want.tolist()
    probability = np.exp(logits[place] - logits[place].max())
    np.testing.assert_allclose([g.probability for g in guesses], (probability / probability.sum())[want], rtol=1e-4)
    assert guesses[0].word == zoo.load_tokenizer(tmp_path).decode([want[0]]).strip()
  alone = zoo.fill_mask(tmp_path, texts[1], best=3)
  assert [guess.token for guess in alone[0]] == [guess.token for guess in vectors[1][0]]
  with pytest.raises(UserError, match=r"no \[MASK\] in the text 'plain'"):
    zoo.fill_mask(tmp_path, ["[MASK]", "plain"])
  edit_config(tmp_path, architectures=["BertModel"])
