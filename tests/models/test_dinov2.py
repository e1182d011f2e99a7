import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError
from zoo.models.dinov2 import GridPositions, cubic

SIZES = dict(image_size=7, patch_size=3, dim=6, depth=2, num_heads=3, num_classes=5, registers=2, mask_token=True)
MODEL = zoo.build("dinov2", **SIZES)
PARAMS = {"params": filled(MODEL, *MODEL.example())}
APPLY = jax.jit(MODEL.apply)
IMAGE = jax.random.normal(jax.random.key(0), (2, 7, 7, 3))


def test_images_of_any_size_have_a_state_for_each_patch():
  for height, width in ((7, 7), (3, 5), (9, 13)):
    out = APPLY(PARAMS, jnp.ones((2, height, width, 3)))
    assert out["hidden"].shape == (2, 1 + 2 + (height // 3) * (width // 3), 6)
    np.testing.assert_array_equal(out["pooled"], out["hidden"][:, 0])


@pytest.mark.parametrize("antialias", [False, True])
def test_resampled_positions_keep_what_is_constant_and_what_is_in_place(antialias):
  for size, wanted in ((5, 3), (5, 7), (2, 9)):
    np.testing.assert_allclose(cubic(size, wanted, antialias).sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(cubic(size, wanted, antialias)[::-1, ::-1], cubic(size, wanted, antialias), atol=1e-6)
  np.testing.assert_allclose(cubic(5, 5, antialias), np.eye(5), atol=1e-6)


def test_positions_of_the_grid_itself_are_the_table():
  positions = GridPositions(2, 3)
  params = {"embedding": jax.random.normal(jax.random.key(0), (5, 3))}
  np.testing.assert_array_equal(positions.apply({"params": params}, 2, 2)[0], params["embedding"])
  larger = positions.apply({"params": params}, 4, 3)
  assert larger.shape == (1, 13, 3)
  np.testing.assert_array_equal(larger[0, 0], params["embedding"][0])


def test_what_is_masked_is_not_seen():
  masked = jnp.array([[False, True, False, False]] * 2)
  one = APPLY(PARAMS, IMAGE, masked=masked)["logits"]
  np.testing.assert_array_equal(APPLY(PARAMS, IMAGE.at[:, :3, 3:6].add(1), masked=masked)["logits"], one)
  assert abs(APPLY(PARAMS, IMAGE)["logits"] - one).max() > 1e-3


def test_wrong_inputs_and_sizes_are_refused():
  with pytest.raises(
    ValueError, match=r"Images have shape \[2, 2, 7, 3\], the model needs .* of at least 3 x 3 pixels"
  ):
    APPLY(PARAMS, IMAGE[:, :2])
  plain = zoo.build("dinov2", **{**SIZES, "mask_token": False})
  with pytest.raises(ValueError, match="This model has no mask token."):
    jax.eval_shape(lambda: plain.init(jax.random.key(0), IMAGE, masked=jnp.ones((2, 4), bool)))
  with pytest.raises(UserError, match="patch_size 8 exceeds image_size 7"):
    zoo.build("dinov2", **{**SIZES, "patch_size": 8})
