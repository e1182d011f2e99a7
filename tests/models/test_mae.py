import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError

SIZES = dict(image_size=9, patch_size=3, dim=12, depth=2, num_heads=3, mask_ratio=0.6)
MODEL = zoo.build("mae", **SIZES)
PARAMS = {"params": filled(MODEL, *MODEL.example())}
APPLY = jax.jit(MODEL.apply)
IMAGE = jax.random.normal(jax.random.key(0), (2, 9, 9, 3))
NOISE = jax.random.uniform(jax.random.key(1), (2, 9))


def test_what_is_left_out_is_not_seen_and_what_is_left_is():
  out = APPLY(PARAMS, IMAGE, noise=NOISE)
  assert out["hidden"].shape == (2, 1 + 3, 12) and out["masked"].sum(1).tolist() == [6, 6]
  for place in range(9):
    row, column = 3 * (place // 3), 3 * (place % 3)
    other = APPLY(PARAMS, IMAGE.at[:, row : row + 3, column : column + 3].add(1), noise=NOISE)
    changed = abs(other["pooled"] - out["pooled"]).max(1) > 1e-5
    np.testing.assert_array_equal(changed, ~out["masked"][:, place])


def test_patches_go_back_to_where_they_were():
  out = APPLY(PARAMS, IMAGE, noise=NOISE)
  np.testing.assert_array_equal(jnp.take_along_axis(jnp.sort(NOISE), out["restore"], 1), NOISE)
  assert ((out["restore"] < 3) == ~out["masked"]).all()


def test_with_nothing_left_out_order_is_all_that_noise_changes():
  model = zoo.build("mae", **{**SIZES, "mask_ratio": 0.0})
  plain, mixed = model.apply(PARAMS, IMAGE), model.apply(PARAMS, IMAGE, noise=NOISE)
  assert not mixed["masked"].any() and set(plain) == {"hidden", "pooled"}
  back = jnp.take_along_axis(mixed["hidden"][:, 1:], mixed["restore"][:, :, None], 1)
  np.testing.assert_allclose(back, plain["hidden"][:, 1:], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(mixed["pooled"], plain["pooled"], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(plain["pooled"], APPLY(PARAMS, IMAGE)["pooled"], rtol=1e-4, atol=1e-5)


def test_positions_tell_rows_from_columns_and_leave_the_class_token_alone():
  table = jax.jit(MODEL.init)(jax.random.key(0), IMAGE)["params"]["positions"]["embedding"]
  grid = table[1:].reshape(3, 3, 12)
  assert not table[0].any()
  np.testing.assert_array_equal(grid[0, :, :6], grid[2, :, :6])  # The column: alike in every row.
  np.testing.assert_array_equal(grid[:, 0, 6:], grid[:, 2, 6:])
  np.testing.assert_allclose(grid[1, 2, 0], np.sin(2.0), rtol=1e-6)


def test_impossible_inputs_and_sizes_are_refused():
  with pytest.raises(ValueError, match=r"noise has shape \[2, 8\], the model needs \[2, 9\], one value per patch"):
    APPLY(PARAMS, IMAGE, noise=NOISE[:, 1:])
  with pytest.raises(UserError, match="mae: mask_ratio is 1. It must be a probability"):
    zoo.build("mae", **{**SIZES, "mask_ratio": 1})
  with pytest.raises(UserError, match="mae: dim 6 is not a multiple of 4"):
    zoo.build("mae", **{**SIZES, "dim": 6})
