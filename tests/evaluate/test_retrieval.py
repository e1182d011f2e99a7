import json
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import zoo
from tests.data import toys
from tests.evaluate.toys import Towers, Toy
from zoo import sharding
from zoo.data.image_text import image_text
from zoo.errors import UserError
from zoo.evaluate import ranking
from zoo.evaluate.retrieval import retrieval

COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)
NAMES = ["red", "green", "blue", "yellow"]


def pairs(colours, tokens, groups):
  """Drawings of one colour each, with a one-token name."""
  colours, tokens = np.asarray(colours, np.uint8), np.asarray(tokens, np.int32)[:, None]
  image = np.broadcast_to(colours[:, None, None], (len(colours), 5, 5, 3))
  captions = [NAMES[token % 4] for token in tokens[:, 0]]
  group = np.asarray(groups, np.int32)
  return Toy(captions, image=image, tokens=tokens, valid=np.ones(tokens.shape, bool), group=group)


def knowing(*colours):
  """Parameters of `Towers`: the text of token t stands for the t-th colour."""
  rows = np.asarray(COLOURS[list(colours)], np.float32) / 127.5 - 1
  return {"image": jnp.eye(3), "text": jnp.asarray(rows)}


DATA = pairs(COLOURS, [0, 1, 2, 3], [10, 11, 12, 13])


def test_a_model_that_knows_every_colour_finds_every_name():
  metrics = retrieval(Towers(), data=DATA, batch_size=3, at=(1, 2))(knowing(0, 1, 2, 3))
  assert {key: metrics[key] for key in metrics if "/" not in key} == {
    "image_to_text_r1": 1.0,
    "image_to_text_r2": 1.0,
    "text_to_image_r1": 1.0,
    "text_to_image_r2": 1.0,
  }
  assert metrics["chance/image_to_text_r1"] == 1 / 4
  assert metrics["chance/text_to_image_r2"] == 1 / 2


def test_recalls_equal_those_counted_by_hand():
  # Red and green are taken for each other, blue and yellow are known. In [-1, 1] the products of different colours are
  #          red green blue yellow
  #   red      3   -1   -1     1
  #   green   -1    3   -1     1
  #   blue    -1   -1    3    -3
  #   yellow   1    1   -3     3
  # so red meets the names (green, red, blue, yellow) at 3 (wrong), -1 (right), -1 (a tie that counts against us) and 1.
  metrics = retrieval(Towers(), data=DATA, batch_size=4, at=(1, 2, 3, 4))(knowing(1, 0, 2, 3))
  assert [metrics[f"image_to_text_r{k}"] for k in (1, 2, 3, 4)] == [0.5, 0.5, 0.5, 1.0]
  assert [metrics[f"text_to_image_r{k}"] for k in (1, 2, 3, 4)] == [0.5, 0.5, 0.5, 1.0]


def test_what_is_of_the_same_group_belongs_together_and_stands_in_the_gallery_once():
  # Two shades of red share the name red, one drawing comes twice: a gallery of 3 images and 2 names.
  records = pairs([[255, 0, 0], [250, 0, 0], [0, 255, 0], [0, 255, 0]], [0, 0, 1, 1], [10, 10, 11, 11])
  metrics = retrieval(Towers(), data=records, batch_size=4, at=(1,))(knowing(0, 1))
  assert metrics["image_to_text_r1"] == metrics["text_to_image_r1"] == 1.0
  assert metrics["chance/image_to_text_r1"] == 1 / 2
  assert metrics["chance/text_to_image_r1"] == pytest.approx((2 / 3 + 1 / 3) / 2)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 7])
def test_rows_that_pad_the_last_batch_change_nothing(batch_size):
  params = knowing(1, 2, 2, 0)
  assert retrieval(Towers(), data=DATA, batch_size=batch_size)(params) == retrieval(Towers(), data=DATA)(params)


def test_the_nearest_training_drawing_names_an_image():
  train = pairs(
    [[200, 0, 0], [0, 200, 0], [0, 190, 10], [0, 0, 200], [90, 200, 0]], [0, 1, 1, 2, 3], [10, 11, 11, 12, 13]
  )
  metrics = retrieval(Towers(), data=DATA, train_data=train, at=(1, 2, 3))(knowing(0, 1, 2, 3))
  # Squared distances of the queries to the nearest training drawing of each name, in the order of the names:
  #   red     55^2, 255^2+200^2, 255^2+200^2, 165^2+200^2
  #   green   200^2+255^2, 55^2, 255^2+200^2, 90^2+55^2      blue    ..., ..., 55^2, ...
  #   yellow  55^2+255^2, 255^2+55^2 (green: equal to red), 3 x ~, 165^2+55^2
  assert [metrics[f"pixels/image_to_text_r{k}"] for k in (1, 2, 3)] == [1.0, 1.0, 1.0]
  # The name yellow: its drawing (90, 200, 0) is nearer to green (90^2 + 55^2) than to yellow (165^2 + 55^2).
  assert [metrics[f"pixels/text_to_image_r{k}"] for k in (1, 2, 3)] == [0.75, 1.0, 1.0]


def test_pixels_are_left_out_where_a_concept_has_no_training_drawing(tmp_path):
  train = pairs(COLOURS[:3], [0, 1, 2], [10, 11, 12])
  metrics = retrieval(Towers(), data=DATA, train_data=train)(knowing(0, 1, 2, 3), tmp_path)
  assert not any(key.startswith("pixels/") for key in metrics)
  text = (tmp_path / "retrieval.txt").read_text()
  assert "No row pixels: it is undefined here" in text and "\npixels" not in text
  assert json.loads((tmp_path / "retrieval.json").read_text())["pixels_undefined"] is True


def test_the_legend_explains_the_rows_that_there_are(tmp_path):
  for name, train in (("without", None), ("with", DATA)):
    metrics = retrieval(Towers(), data=DATA, train_data=train, file=name)(knowing(0, 1, 2, 3), tmp_path)
    text = (tmp_path / f"{name}.txt").read_text()
    assert ("pixels" in text) == any(key.startswith("pixels/") for key in metrics) == (train is not None)
    assert "chance: a ranking" in text and "rK: the fraction of queries" in text and "Right is every answer" in text


def test_the_picture_shows_queries_in_frames_of_both_colours(tmp_path):
  metrics = retrieval(Towers(), data=DATA, train_data=DATA, file="colours")(knowing(1, 0, 2, 3), tmp_path, 7)
  picture = np.asarray(Image.open(tmp_path / "colours.png").convert("RGB")).astype(int)
  assert picture.shape[0] > 300 and picture.shape[1] > 1000

  def share(colour):
    return np.mean(np.abs(picture - np.array(colour)).sum(-1) < 30)

  assert 0.3 < share([255, 255, 255]) < 0.99
  assert share([42, 157, 58]) > 1e-3  # green frames
  assert share([208, 58, 47]) > 1e-3  # red frames
  assert share([0, 0, 255]) > 1e-3  # the blue drawing
  text = (tmp_path / "colours.txt").read_text()
  assert "step 7, 4 images, 4 texts" in text
  assert json.loads((tmp_path / "colours.json").read_text())["image_to_text_r1"] == metrics["image_to_text_r1"]


class Several(Toy):
  """Drawings with several captions each, of one token."""

  def captions_of(self, index):
    return self.captions[index]

  def caption(self, index, number=0):
    return str(self.captions[index][number])

  def tokens_of(self, caption):
    width = self.columns["tokens"].shape[1]
    return {"tokens": np.full(width, caption, np.int32), "valid": np.ones(width, bool)}


def several(rng, counts, kinds):
  """Random colours; picture i has counts[i] captions, each another one of `kinds` tokens."""
  captions = [part.tolist() for part in np.split(rng.permutation(kinds)[: sum(counts)], np.cumsum(counts)[:-1])]
  image = np.broadcast_to(rng.integers(0, 256, (len(counts), 1, 1, 3)).astype(np.uint8), (len(counts), 5, 5, 3))
  first = np.array([one[:1] for one in captions], np.int32)
  return captions, Several(captions, image=image, tokens=first, valid=np.ones(first.shape, bool))


def test_of_several_captions_any_is_found_and_each_finds():
  """Recall as on COCO and Flickr30k, computed differently: by sorting, image by image and text by text."""
  rng, counts = np.random.default_rng(0), [5, 1, 3, 2, 7, 5, 4]
  captions, records = several(rng, counts, kinds=50)
  captions[4][3] = captions[4][1]  # Equal captions of a picture are as many queries.
  params = {"image": jnp.asarray(rng.normal(size=(3, 3)), jnp.float32), "text": jnp.asarray(rng.normal(size=(50, 3)))}
  metrics = retrieval(Towers(), data=records, batch_size=3, at=(1, 2, 5))(params)
  vectors = (records.columns["image"][:, 0, 0] / 127.5 - 1) @ np.asarray(params["image"])
  texts, owner = np.array(sum(captions, [])), np.repeat(np.arange(7), counts)
  scores = vectors @ np.asarray(params["text"])[texts].T  # [pictures, 27 texts]
  assert scores.shape == (7, 27)
  for k in (1, 2, 5):
    hits = [np.isin(np.flatnonzero(owner == i), np.argsort(-row)[:k]).any() for i, row in enumerate(scores)]
    assert metrics[f"image_to_text_r{k}"] == pytest.approx(np.mean(hits))
    hits = [owner[j] in np.argsort(-column)[:k] for j, column in enumerate(scores.T)]
    assert metrics[f"text_to_image_r{k}"] == pytest.approx(np.mean(hits))
  assert metrics["chance/text_to_image_r1"] == pytest.approx(1 / 7)


def test_a_picture_with_several_captions_is_shown_with_the_one_that_is_meant(tmp_path):
  toys.write(tmp_path, {f"{name}.png": toys.png(name) for name in ("red", "green")})
  toys.write(
    tmp_path,
    {
      "red.json": '{"sentences": [{"raw": "a"}, {"raw": "b"}, {"raw": "a"}]}',
      "green.json": '{"sentences": ["c", "d"]}',
    },
  )
  records = image_text(f"images:{tmp_path}", tokenizer="bytes", max_length=4)
  assert sorted(records.captions_of(i) for i in range(2)) == [["a", "b", "a"], ["c", "d"]]
  params = {"image": jnp.eye(3), "text": jnp.asarray(np.random.default_rng(0).normal(size=(260, 3)))}
  metrics = retrieval(Towers(), data=records, at=(1,))(params, tmp_path / "out")
  assert json.loads((tmp_path / "out" / "retrieval.json").read_text())["texts"] == 5
  assert metrics["chance/image_to_text_r1"] == pytest.approx((3 / 5 + 2 / 5) / 2)


def test_parameters_over_a_mesh_give_the_same_numbers():
  model = zoo.build(
    "clip", image_size=6, patch_size=3, image_dim=8, image_depth=1, image_heads=2, text_dim=8, text_depth=1,
    text_heads=2, embed_dim=8, vocab_size=16, max_length=5,
  )  # fmt: skip
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (11, 6, 6, 3), np.uint8)
  tokens = rng.integers(0, 16, (11, 5)).astype(np.int32)
  records = Several(
    [[0, 3, 4], [1]] * 5 + [[2, 2]],
    image=image,
    tokens=tokens,
    valid=np.ones((11, 5), bool),
    group=np.arange(11, dtype=np.int32),
  )
  params = jax.jit(model.init)(jax.random.key(0), *model.example())["params"]
  evaluate = retrieval(model, data=records, batch_size=4)
  wanted = evaluate(params)
  mesh = sharding.make_mesh({"data": 2, "model": 4})
  for strategy in ("replicated", "fsdp"):
    assert evaluate(jax.device_put(params, sharding.shardings(params, strategy, mesh))) == wanted


class Wide(Towers):
  """A model computed by NumPy: tracemalloc does not count JAX's memory."""

  def apply(self, variables, inputs, *, valid=None, method):
    width = variables["params"]["text"].shape[1]
    rows = inputs.mean((1, 2))[:, :1] if method == "encode_image" else inputs[:, :1]
    return jnp.broadcast_to(rows.astype(jnp.float32), (len(rows), width))


class Numbered(Toy):
  """Any number of pairs, none of which is kept in memory."""

  def __init__(self, count):
    self.count, self.info = count, {}

  def __len__(self):
    return self.count

  def example(self, index, rng=None):
    image = np.full((2, 2, 3), 0, np.uint8) + np.array([index % 256, index // 256, 0], np.uint8)
    return {"image": image, "tokens": np.array([index], np.int32), "valid": np.ones(1, bool)}


def test_memory_does_not_grow_with_the_vectors(monkeypatch):
  monkeypatch.setattr(ranking, "BLOCK", 2**14)
  monkeypatch.setattr(ranking, "ROWS", 64)
  params = {"text": jnp.zeros((1, 256))}

  def peak(count):
    evaluate = retrieval(Wide(), data=Numbered(count), batch_size=64, at=(1,))
    tracemalloc.start()
    evaluate(params)
    metrics = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return metrics

  peak(128)  # What is imported and traced once.
  few, many = peak(512), peak(2560)
  # The vectors of a pair take 2048 bytes; what is kept of it, two digests and some numbers, less than a tenth.
  assert many - few < 2048 * 200


def test_a_model_that_embeds_nothing_is_refused():
  with pytest.raises(UserError, match="retrieval needs a model with encode_image and encode_text; object has none"):
    retrieval(object(), data=DATA)
