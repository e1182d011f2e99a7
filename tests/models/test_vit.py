import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError

SIZES = dict(image_size=6, patch_size=3, dim=6, depth=2, num_heads=3, num_classes=5)
MODEL = zoo.build("vit", **SIZES)
APPLY = jax.jit(MODEL.apply)
IMAGE = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))


def variables_of(model=MODEL):
  return {"params": filled(model, *model.example())}


def test_outputs_are_hidden_states_the_class_token_and_logits():
  out = APPLY(variables_of(), IMAGE)
  assert {name: x.shape for name, x in out.items()} == {"hidden": (2, 5, 6), "pooled": (2, 6), "logits": (2, 5)}
  np.testing.assert_array_equal(out["pooled"], out["hidden"][:, 0])


def test_without_classes_there_are_no_logits():
  model = zoo.build("vit", **{**SIZES, "num_classes": None})
  assert set(model.apply(variables_of(model), IMAGE)) == {"hidden", "pooled"}


def test_without_positions_patches_are_a_set():
  params = variables_of()
  places = params["params"]["positions"]
  blind = {"params": {**params["params"], "positions": jax.tree.map(jnp.zeros_like, places)}}
  mirrored = jnp.concatenate(
    [IMAGE[:, :, 3:], IMAGE[:, :, :3]], axis=2
  )  # The left and the right patches change places.
  one, other = (APPLY(blind, image)["logits"] for image in (IMAGE, mirrored))
  np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
  assert abs(APPLY(params, IMAGE)["logits"] - APPLY(params, mirrored)["logits"]).max() > 0.01


def test_an_image_of_another_size_is_refused():
  with pytest.raises(ValueError, match=r"Images have shape \[2, 6, 9, 3\], the model needs \[batch, 6, 6, 3\]"):
    APPLY(variables_of(), jnp.zeros((2, 6, 9, 3)))


def test_patches_that_do_not_fill_the_image_are_refused():
  with pytest.raises(UserError, match="image_size 6 does not divide into patches of patch_size 4"):
    zoo.build("vit", **{**SIZES, "patch_size": 4})


def test_starts_as_the_code_of_the_paper():
  model = zoo.build("vit", **{**SIZES, "dim": 48, "image_size": 30})
  params = jax.jit(lambda rng: model.init(rng, *model.example()))(jax.random.key(0))["params"]
  layer = params["stack"]["layer_1"]
  np.testing.assert_allclose(layer["feed_forward"]["up"]["kernel"].std(), math.sqrt(2 / (48 + 192)), rtol=0.03)
  np.testing.assert_allclose(layer["self_attention"]["query"]["kernel"].std(), math.sqrt(2 / (48 + 48)), rtol=0.03)
  np.testing.assert_allclose(params["patches"]["kernel"].std(), 27**-0.5, rtol=0.06)
  np.testing.assert_allclose(params["positions"]["embedding"].std(), 0.02, rtol=0.06)
  assert not params["class_token"]["embedding"].any() and not params["head"]["kernel"].any()
