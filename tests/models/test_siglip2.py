import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError
from zoo.models.siglip2_vision import FlexiblePositions, resize_weights

IMAGE_SIZES = dict(image_size=9, patch_size=3, image_dim=6, image_depth=2, image_heads=3)
SIZES = dict(**IMAGE_SIZES, text_dim=10, text_depth=1, text_heads=5, vocab_size=23, max_length=11)
MODEL = zoo.build("siglip2", **SIZES)
PARAMS = {"params": filled(MODEL, *MODEL.example())}
ENCODE = jax.jit(lambda params, image: MODEL.apply(params, image, method="encode_image"))


def picture(rows, columns, count):
  patches = jax.random.normal(jax.random.key(0), (2, rows * columns, 27))
  patches = jnp.pad(patches, ((0, 0), (0, count - rows * columns), (0, 0)), constant_values=7.0)
  valid = jnp.broadcast_to(jnp.arange(count) < rows * columns, (2, count))
  return {"patches": patches, "valid": valid, "grid": jnp.array([[rows, columns]] * 2)}


def test_padding_changes_nothing():
  one, other = ENCODE(PARAMS, picture(2, 4, 8)), ENCODE(PARAMS, picture(2, 4, 11))
  np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_the_same_patches_in_another_shape_are_another_image():
  one, other = ENCODE(PARAMS, picture(2, 4, 8)), ENCODE(PARAMS, picture(4, 2, 8))
  assert abs(one - other).max() > 1e-3


def test_a_square_of_as_many_patches_as_positions_is_that_of_a_siglip():
  plain = zoo.build("siglip", **SIZES)
  kernel = PARAMS["params"]["image"]["patches"]["kernel"].reshape(3, 3, 3, 6)
  image = {**PARAMS["params"]["image"]}
  image["patches"] = {**image["patches"], "kernel": kernel}
  pixels = jax.random.normal(jax.random.key(1), (2, 9, 9, 3))
  want = plain.apply({"params": {**PARAMS["params"], "image": image}}, pixels, method="encode_image")
  patches = pixels.reshape(2, 3, 3, 3, 3, 3).swapaxes(2, 3).reshape(2, 9, 27)
  encoded = ENCODE(PARAMS, {"patches": patches, "valid": jnp.ones((2, 9), bool), "grid": jnp.full((2, 2), 3)})
  np.testing.assert_allclose(encoded, want, rtol=1e-4, atol=1e-5)


def test_resampled_positions_keep_what_is_constant_and_what_is_in_place():
  every = lambda size, wanted: resize_weights(size, jnp.array([[wanted]]), jnp.arange(wanted)[None])[0]
  for size, wanted in ((5, 3), (5, 7), (2, 9), (4, 1)):
    np.testing.assert_allclose(every(size, wanted).sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(every(size, wanted)[::-1, ::-1], every(size, wanted), atol=1e-6)
  np.testing.assert_array_equal(every(5, 5), np.eye(5))
  np.testing.assert_allclose(every(4, 1)[0], np.array([5, 7, 7, 5]) / 24, rtol=1e-6)
  table = jax.random.normal(jax.random.key(0), (9, 4))
  encoded = FlexiblePositions(3, 4).apply({"params": {"embedding": table}}, 11, jnp.array([[3, 3]]))[0]
  np.testing.assert_allclose(encoded, jnp.concatenate([table, table[:1], table[:1]]), rtol=1e-6)


def test_impossible_inputs_and_sizes_are_refused():
  image = picture(2, 4, 8)
  for message, wrong in {
    r"patches of an image have shape \[2, 8, 26\], the model needs \['batch', 'n', 27\]": {
      **image, "patches": image["patches"][:, :, 1:]
    },
    r"grid of an image have shape \[2, 3\]": {**image, "grid": jnp.ones((2, 3), int)},
    r"image is an array .*, the model needs a dict of patches, valid, grid: zoo.load_processor": image["patches"],
  }.items():  # fmt: skip
    with pytest.raises(ValueError, match=message):
      MODEL.apply(PARAMS, wrong, method="encode_image")
  with pytest.raises(UserError, match="siglip2: image_size 9 does not divide into patches of patch_size 4"):
    zoo.build("siglip2", **{**SIZES, "patch_size": 4})
