import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import zoo
from tests.convert.parity import Case, check, reference, to_torch
from zoo.errors import UserError

SMALL = dict(
  text_config=dict(
    vocab_size=37, max_position_embeddings=13, hidden_size=12, num_hidden_layers=3, num_attention_heads=3,
    intermediate_size=30, projection_size=10,
  ),
  vision_config=dict(
    num_patches=16, patch_size=2, hidden_size=10, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
  ),
)  # fmt: skip
ODD = dict(
  text_config=dict(
    vocab_size=29, max_position_embeddings=9, hidden_size=15, num_hidden_layers=2, num_attention_heads=5,
    intermediate_size=11, hidden_act="relu", layer_norm_eps=0.02,
  ),
  vision_config=dict(
    num_patches=9, patch_size=3, num_channels=2, hidden_size=15, num_hidden_layers=3, num_attention_heads=3,
    intermediate_size=19, hidden_act="relu", layer_norm_eps=0.02,
  ),
)  # fmt: skip
BARE = dict(
  num_labels=7, vision_config={**SMALL["vision_config"], "vision_use_head": False, "hidden_act": "quick_gelu"}
)
# Lower and wider than the grid of the positions, as high as it, one patch; padding behind all but the first.
GRIDS = np.array([(3, 5), (2, 7), (4, 3), (1, 1)], np.int32)
# No column of several patches: torch's resampling on CPUs gives all of its rows the first one's value.
ODD_GRIDS = np.array([(2, 11), (8, 2), (3, 3), (1, 5)], np.int32)


def picture(rng, config, grids=GRIDS):
  vision = config["vision_config"]
  count = int(grids.prod(1).max())
  patches = rng.normal(size=(len(grids), count, vision["patch_size"] ** 2 * vision.get("num_channels", 3)))
  valid = np.arange(count)[None] < grids.prod(1)[:, None]
  return {"patches": patches.astype(np.float32), "valid": valid, "grid": grids}


def as_theirs(image):
  names = {"pixel_values": "patches", "pixel_attention_mask": "valid", "spatial_shapes": "grid"}
  return {theirs: to_torch(image[ours]) for theirs, ours in names.items()}


def pair(name, config, grids=GRIDS):
  def inputs(rng):
    shape = (len(grids), 8)
    return (
      picture(rng, config, grids),
      rng.integers(0, config["text_config"]["vocab_size"], shape),
      rng.random(shape) < 0.7,
    )

  def ours(rng):
    image, tokens, valid = inputs(rng)
    return (image, jnp.asarray(tokens)), {"valid": jnp.asarray(valid)}

  def theirs(rng):
    image, tokens, valid = inputs(rng)
    return {**as_theirs(image), "input_ids": to_torch(tokens), "attention_mask": to_torch(valid)}

  towers = {"image": "vision_model_output", "text": "text_model_output"}
  return Case(
    name, "Siglip2Model", "Siglip2Config", config, ours, theirs,
    outputs={
      "image": (lambda out: out["image"], lambda out: out.image_embeds),
      "text": (lambda out: out["text"], lambda out: out.text_embeds),
      "logits": (
        lambda out: out["scale"] * out["image"] @ out["text"].T + out["bias"], lambda out: out.logits_per_image
      ),
    },
    hidden=tuple((f"{tower}/stack/layer_(\\d+)", f"{theirs}.hidden_states") for tower, theirs in towers.items()),
    weights=tuple(
      (f"{tower}/stack/layer_(\\d+)/self_attention", f"{theirs}.attentions") for tower, theirs in towers.items()
    ),
  )  # fmt: skip


def classifier(name, config):
  return Case(
    name, "Siglip2ForImageClassification", "Siglip2Config", config,
    ours=lambda rng: ((picture(rng, config),), {}),
    theirs=lambda rng: as_theirs(picture(rng, config)),
    outputs={"logits": (lambda out: out["logits"], lambda out: out.logits)},
    hidden=(("image/stack/layer_(\\d+)", "hidden_states"),),
    weights=(("image/stack/layer_(\\d+)/self_attention", "attentions"),),
  )  # fmt: skip


CASES = [
  pair("small", SMALL),
  pair("odd", ODD, ODD_GRIDS),
  classifier("classify", {**ODD, "num_labels": 5}),
  classifier("classify bare", BARE),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


def test_vectors_of_images_of_any_shape_are_those_of_the_reference(tmp_path):
  import torch
  import transformers

  there = reference(pair("small", SMALL))
  there.save_pretrained(tmp_path)
  theirs = transformers.Siglip2ImageProcessorPil(patch_size=2, max_num_patches=20, image_mean=[0.3, 0.4, 0.5])
  theirs.save_pretrained(tmp_path)
  rng = np.random.default_rng(0)
  shapes = ((9, 14), (31, 7), (5, 5), (2, 3), (8, 90))
  images = [rng.integers(0, 256, (*shape, 3)).astype(np.uint8) for shape in shapes]
  inputs = theirs([Image.fromarray(image) for image in images], return_tensors="np")
  batch = zoo.load_processor(tmp_path)(images)["image"]
  np.testing.assert_array_equal(batch["grid"], inputs["spatial_shapes"])
  np.testing.assert_array_equal(batch["valid"], inputs["pixel_attention_mask"].astype(bool))
  np.testing.assert_allclose(batch["patches"], inputs["pixel_values"], atol=1e-6)
  with torch.no_grad():
    want = there.get_image_features(**{name: to_torch(array) for name, array in inputs.items()}).pooler_output.numpy()
  want /= np.linalg.norm(want, axis=1, keepdims=True)
  np.testing.assert_allclose(zoo.embed(tmp_path, images, batch_size=2), want, atol=1e-5)


@pytest.mark.parametrize(
  "tower, entries, message",
  [
    ("vision_config", {"num_patches": 12}, "num_patches is 12, .* It has: 'a square, as 256'"),
    ("vision_config", {"patch_size": [2, 2]}, "patch_size is"),
    ("text_config", {"projection_size": 9}, "projection_size is 9, .* width of the other tower, 10"),
  ],
  ids=str,
)
def test_what_is_not_there_is_refused_by_name(tower, entries, message, tmp_path):
  reference(pair("small", SMALL)).save_pretrained(tmp_path)
  config = json.loads((tmp_path / "config.json").read_text())
  (tmp_path / "config.json").write_text(json.dumps({**config, tower: {**config[tower], **entries}}))
  with pytest.raises(UserError, match=message):
    zoo.load(tmp_path)
