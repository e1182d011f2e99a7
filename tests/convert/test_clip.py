import jax.numpy as jnp
import numpy as np
import pytest

from tests.convert.parity import Case, check, to_torch

SMALL = dict(
  text_config=dict(
    vocab_size=37, max_position_embeddings=13, hidden_size=12, num_hidden_layers=3, num_attention_heads=3,
    intermediate_size=30, eos_token_id=2,
  ),
  vision_config=dict(
    image_size=12, patch_size=4, hidden_size=10, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
  ),
  projection_dim=7,
)  # fmt: skip
ODD = dict(
  text_config=dict(
    vocab_size=29, max_position_embeddings=9, hidden_size=15, num_hidden_layers=2, num_attention_heads=5,
    intermediate_size=11, eos_token_id=5, hidden_act="gelu", layer_norm_eps=0.02,
  ),
  vision_config=dict(
    image_size=14, patch_size=7, hidden_size=18, num_hidden_layers=3, num_attention_heads=3, intermediate_size=19,
    hidden_act="gelu", layer_norm_eps=0.02,
  ),
  projection_dim=6,
)  # fmt: skip


def case(name, config):
  text, vision = config["text_config"], config["vision_config"]
  shape = (3, vision["image_size"], vision["image_size"], 3)

  def inputs(rng):
    tokens = rng.integers(6, text["vocab_size"], (3, 8)).astype(np.int32)
    tokens[0, 5] = 5  # An end; other texts have none.
    return rng.normal(size=shape).astype(np.float32), tokens

  def ours(rng):
    image, tokens = inputs(rng)
    return (jnp.asarray(image), jnp.asarray(tokens)), {}

  def theirs(rng):
    image, tokens = inputs(rng)
    return {"pixel_values": to_torch(image.transpose(0, 3, 1, 2)), "input_ids": to_torch(tokens)}

  return Case(
    name, "CLIPModel", "CLIPConfig", config, ours, theirs,
    outputs={
      "image": (lambda out: out["image"], lambda out: out.image_embeds),
      "text": (lambda out: out["text"], lambda out: out.text_embeds),
      "logits": (lambda out: out["scale"] * out["image"] @ out["text"].T, lambda out: out.logits_per_image),
    },
    hidden=(
      ("image/stack/layer_(\\d+)", "vision_model_output.hidden_states"),
      ("text/stack/layer_(\\d+)", "text_model_output.hidden_states"),
    ),
    weights=(
      ("image/stack/layer_(\\d+)/self_attention", "vision_model_output.attentions"),
      ("text/stack/layer_(\\d+)/self_attention", "text_model_output.attentions"),
    ),
  )  # fmt: skip


def classifier(name, config):
  size = config["vision_config"]["image_size"]
  draw = lambda rng: rng.normal(size=(3, size, size, 3)).astype(np.float32)
  return Case(
    name, "CLIPForImageClassification", "CLIPConfig", config,
    ours=lambda rng: ((jnp.asarray(draw(rng)),), {}),
    theirs=lambda rng: {"pixel_values": to_torch(draw(rng).transpose(0, 3, 1, 2))},
    outputs={"logits": (lambda out: out["logits"], lambda out: out.logits)},
    hidden=(("image/stack/layer_(\\d+)", "hidden_states"),),
    weights=(("image/stack/layer_(\\d+)/self_attention", "attentions"),),
  )  # fmt: skip


# A tower of texts that differs is no matter to a classifier of images.
OTHER_TEXTS = {**SMALL, "text_config": {**SMALL["text_config"], "hidden_act": "gelu"}, "num_labels": 5}
CASES = [case("small", SMALL), case("odd", ODD), classifier("classify", OTHER_TEXTS)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)
