import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.convert.parity import Case, applied, check, reference, to_torch
from zoo.errors import UserError

DECODER = dict(
  decoder_hidden_size=8, decoder_num_hidden_layers=1, decoder_num_attention_heads=2, decoder_intermediate_size=6
)
SMALL = dict(
  image_size=12, patch_size=4, hidden_size=12, num_hidden_layers=3, num_attention_heads=3, intermediate_size=30,
  **DECODER,
)  # fmt: skip
ODD = dict(
  image_size=21, patch_size=7, num_channels=2, hidden_size=20, num_hidden_layers=2, num_attention_heads=5,
  intermediate_size=17, hidden_act="relu", layer_norm_eps=0.02, mask_ratio=0.4, qkv_bias=False, **DECODER,
)  # fmt: skip
HIDDEN = {"hidden": (lambda out: out["hidden"], lambda out: out.last_hidden_state)}
MASKED = {
  "masked": (lambda out: out["masked"].astype(jnp.float32), lambda out: out.mask.requires_grad_()),
  "restore": (lambda out: out["restore"].astype(jnp.float32), lambda out: out.ids_restore.float().requires_grad_()),
}


def case(name, config, outputs=HIDDEN | MASKED, noisy=True):
  """Without noise for us, theirs is in the order of the patches, of which none is left out."""
  side, channels = config["image_size"], config.get("num_channels", 3)
  count = (side // config["patch_size"]) ** 2

  def inputs(rng):
    return rng.normal(size=(2, side, side, channels)), rng.random((2, count)) if noisy else np.arange(2.0 * count)

  def ours(rng):
    image, noise = inputs(rng)
    return (jnp.asarray(image, jnp.float32),), {"noise": jnp.asarray(noise, jnp.float32)} if noisy else {}

  def theirs(rng):
    image, noise = inputs(rng)
    return {"pixel_values": to_torch(image.transpose(0, 3, 1, 2)), "noise": to_torch(noise.reshape(2, count))}

  return Case(name, "ViTMAEModel", "ViTMAEConfig", config, ours, theirs, outputs)


CASES = [
  case("three of four left out", SMALL),
  case("odd", ODD),
  case("none left out", {**SMALL, "mask_ratio": 0.0}),
  case("features", {**ODD, "mask_ratio": 0.0}, HIDDEN, noisy=False),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


def test_the_encoder_of_a_file_from_pretraining_is_read(tmp_path):
  tested = case("", SMALL)
  tested.cls = "ViTMAEForPreTraining"
  there = reference(tested)
  there.save_pretrained(tmp_path)
  model, params = zoo.load(tmp_path)
  args, kwargs = tested.ours(np.random.default_rng(1))
  out = applied(model, params, *args, **kwargs)
  want = there.vit(**tested.theirs(np.random.default_rng(1))).last_hidden_state.detach().numpy()
  np.testing.assert_allclose(out["hidden"], want, rtol=1e-4, atol=1e-5)


def test_positions_start_as_those_of_the_reference():
  from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding as waves

  model = zoo.build("mae", image_size=12, patch_size=4, dim=12, depth=1, num_heads=3)
  ours = jax.jit(model.init)(jax.random.key(0), *model.example())["params"]["positions"]["embedding"]
  theirs = waves(3, 3, 12, cls_token=True).numpy()
  np.testing.assert_allclose(ours, np.concatenate([theirs[:, 6:], theirs[:, :6]], axis=1), atol=1e-6)


def test_vectors_of_images_are_those_of_the_class_token(tmp_path):
  tested = case("", {**SMALL, "mask_ratio": 0.0})
  there = reference(tested)
  there.save_pretrained(tmp_path)
  # As published, with another size.
  entries = dict(do_normalize=True, do_resize=True, feature_extractor_type="ViTFeatureExtractor", resample=2, size=12)
  entries |= dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
  (tmp_path / "preprocessor_config.json").write_text(json.dumps(entries))
  images = list(np.random.default_rng(0).integers(0, 256, (3, 15, 20, 3), np.uint8))
  pixels = zoo.load_processor(tmp_path)(images)["image"]
  want = there(pixel_values=to_torch(pixels.transpose(0, 3, 1, 2))).last_hidden_state[:, 0].detach().numpy()
  np.testing.assert_allclose(zoo.embed(tmp_path, images), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  "entries, message",
  [
    ({"image_size": [12, 12]}, "image_size is"),
    ({"hidden_act": "mish"}, "hidden_act is 'mish'"),
  ],
)
def test_what_is_not_there_is_refused_by_name(entries, message, tmp_path):
  reference(case("", SMALL)).save_pretrained(tmp_path)
  config = json.loads((tmp_path / "config.json").read_text())
  (tmp_path / "config.json").write_text(json.dumps({**config, **entries}))
  with pytest.raises(UserError, match=message):
    zoo.load(tmp_path)
