import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.convert.parity import Case, applied, check, reference, to_torch
from zoo.errors import UserError

SMALL = dict(
  text_config=dict(
    vocab_size=37, max_position_embeddings=13, hidden_size=12, num_hidden_layers=3, num_attention_heads=3,
    intermediate_size=30, projection_size=10,
  ),
  vision_config=dict(
    image_size=12, patch_size=4, hidden_size=10, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
  ),
)  # fmt: skip
# Images of which a margin is left over; both towers of one width.
ODD = dict(
  text_config=dict(
    vocab_size=29, max_position_embeddings=9, hidden_size=15, num_hidden_layers=2, num_attention_heads=5,
    intermediate_size=11, hidden_act="relu", layer_norm_eps=0.02,
  ),
  vision_config=dict(
    image_size=11, patch_size=3, num_channels=2, hidden_size=15, num_hidden_layers=3, num_attention_heads=3,
    intermediate_size=19, hidden_act="relu", layer_norm_eps=0.02,
  ),
)  # fmt: skip
BARE = dict(
  num_labels=7, vision_config={**SMALL["vision_config"], "vision_use_head": False, "hidden_act": "quick_gelu"}
)


def images(config):
  vision = config["vision_config"]
  return (3, vision["image_size"], vision["image_size"], vision.get("num_channels", 3))


def pair(name, config):
  def inputs(rng):
    tokens = rng.integers(0, config["text_config"]["vocab_size"], (3, 8)).astype(np.int32)
    valid = rng.random((3, 8)) < 0.7
    return rng.normal(size=images(config)).astype(np.float32), tokens, valid

  def ours(rng):
    image, tokens, valid = inputs(rng)
    return (jnp.asarray(image), jnp.asarray(tokens)), {"valid": jnp.asarray(valid)}

  def theirs(rng):
    image, tokens, valid = inputs(rng)
    pixels = to_torch(image.transpose(0, 3, 1, 2))
    return {"pixel_values": pixels, "input_ids": to_torch(tokens), "attention_mask": to_torch(valid)}

  towers = {"image": "vision_model_output", "text": "text_model_output"}
  return Case(
    name, "SiglipModel", "SiglipConfig", config, ours, theirs,
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
  draw = lambda rng: rng.normal(size=images(config)).astype(np.float32)
  return Case(
    name, "SiglipForImageClassification", "SiglipConfig", config,
    ours=lambda rng: ((jnp.asarray(draw(rng)),), {}),
    theirs=lambda rng: {"pixel_values": to_torch(draw(rng).transpose(0, 3, 1, 2))},
    outputs={"logits": (lambda out: out["logits"], lambda out: out.logits)},
    hidden=(("image/stack/layer_(\\d+)", "hidden_states"),),
    weights=(("image/stack/layer_(\\d+)/self_attention", "attentions"),),
  )  # fmt: skip


CASES = [pair("small", SMALL), pair("odd", ODD), classifier("classify", {**ODD, "num_labels": 5})]
CASES += [classifier("classify bare", BARE)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


def test_the_image_tower_of_a_pair_gets_classes(tmp_path):
  reference(pair("small", SMALL)).save_pretrained(tmp_path)
  with pytest.warns(UserWarning, match="has no head/bias, head/kernel: initialised at random"):
    model, params = zoo.load(tmp_path, head="classify")
  assert set(params) == {"image", "head"}
  assert applied(model, params, *model.example())["logits"].shape == (1, 2)


@pytest.mark.parametrize(
  "tower, option, message",
  [
    (
      "text_config",
      {"hidden_act": "gelu"},
      "hidden_act is 'gelu', which the zoo does not have. It has: .* other tower",
    ),
    ("vision_config", {"layer_norm_eps": 0.1}, "layer_norm_eps is 1e-06"),
    ("vision_config", {"vision_use_head": False}, "vision_use_head is False"),
    ("text_config", {"projection_size": 9}, "projection_size is 9, .* width of the other tower, 10"),
  ],
  ids=str,
)
def test_what_is_not_there_is_refused_by_name(tower, option, message, tmp_path):
  config = {**SMALL, tower: {**SMALL[tower], **option}}
  reference(pair("small", config)).save_pretrained(tmp_path)
  with pytest.raises(UserError, match=message):
    zoo.load(tmp_path)
