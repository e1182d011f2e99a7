import jax.numpy as jnp
import pytest

from zoo.layers import sizes

HEADS = ("mlm", "classify", None)
REFUSED = {
  "depth is 0. It must be at least 1.": lambda: sizes.positive(dim=3, depth=0),
  "dropout is 1.0. It must be a probability: at least 0, below 1.": lambda: sizes.rate(dropout=1.0),
  "dim 10 does not divide into num_heads 3. Make dim a multiple of num_heads, e.g. 9.": lambda: sizes.head_dim(10, 3),
  "text_dim 10 does not divide into text_heads 4. ": lambda: sizes.head_dim(10, 4, "text_"),
  "image_heads is 0. It must be at least 1.": lambda: sizes.head_dim(10, 0, "image_"),
  "image_size 32 does not divide into patches of patch_size 5. Make it a multiple, e.g. 30.": (
    lambda: sizes.patch_grid(32, 5)
  ),
  "head is 'mml'. It may be: mlm, classify, None.": lambda: sizes.head_fits("mml", HEADS, None),
  r"head is 'classify' and num_classes None. Give num_classes with a classifying head": lambda: sizes.head_fits(
    "classify", HEADS, None
  ),
  "head is 'mlm' and num_classes 5.": lambda: sizes.head_fits("mlm", HEADS, 5),
  "dtype is 'bf16'. It may be: bfloat16, float16, float32, or None": lambda: sizes.compute_dtype("bf16"),
  "dtype is int32. It must be floating:": lambda: sizes.compute_dtype("int32"),
  "dtype is float8_e5m2. It must be floating:": lambda: sizes.compute_dtype("float8_e5m2"),
  "remat is 'most'. It may be None, full, dots, ": lambda: sizes.remat_policy("most"),
  r"tokens are int32 \[3\], the model needs ints \[batch, length\].": (
    lambda: sizes.tokens_fit(jnp.zeros(3, jnp.int32))
  ),
  r"tokens are float32 \[2, 3\]": lambda: sizes.tokens_fit(jnp.zeros((2, 3))),
  r"valid is of shape \[2, 5\], the tokens are \[2, 3\]. Make them equal.": lambda: sizes.tokens_fit(
    jnp.zeros((2, 3), jnp.int32), segments=None, valid=jnp.ones((2, 5), bool)
  ),
  r"Images have shape \[2, 3, 8, 8\], the model needs \[batch, 8, 8, 3\].": (
    lambda: sizes.image_fits(jnp.zeros((2, 3, 8, 8)), 8, 3)
  ),
  r"Images are uint8, the model needs floats: image . 127.5 - 1, or for published models": (
    lambda: sizes.image_fits(jnp.zeros((2, 8, 8, 3), jnp.uint8), 8, 3)
  ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refuses_in_one_line_with_the_way_out(message):
  with pytest.raises(ValueError, match=message) as error:
    REFUSED[message]()
  assert "\n" not in str(error.value)


def test_good_sizes_pass():
  sizes.positive(depth=1, mlp_dim=None)
  sizes.rate(dropout=0.0)
  assert sizes.head_dim(12, 3) == 4
  assert sizes.patch_grid(15, 5) == 3
  assert sizes.compute_dtype(None) is None and sizes.compute_dtype("bfloat16") == jnp.bfloat16
