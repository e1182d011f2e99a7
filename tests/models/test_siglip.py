import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError

IMAGE_SIZES = dict(image_size=7, patch_size=3, image_dim=6, image_depth=1, image_heads=3)
SIZES = dict(**IMAGE_SIZES, text_dim=10, text_depth=2, text_heads=5, vocab_size=23, max_length=11)
MODEL = zoo.build("siglip", **SIZES)
PARAMS = {"params": filled(MODEL, *MODEL.example())}
APPLY = jax.jit(MODEL.apply, static_argnames="method")
IMAGE = jax.random.normal(jax.random.key(0), (3, 7, 7, 3))
TOKENS = jnp.array([[1, 2, 3, 0, 0], [4, 9, 5, 6, 0], [1, 2, 3, 4, 5]])


def test_training_begins_near_the_prior_that_hardly_any_pair_matches():
  start = jax.jit(MODEL.init)(jax.random.key(1), *MODEL.example())
  out = APPLY(start, IMAGE, TOKENS)
  assert set(out) == {"image", "text", "scale", "bias"}
  np.testing.assert_allclose([out["scale"], out["bias"]], [10, -10], rtol=1e-6)


def test_every_token_counts_and_padding_unless_it_is_hidden():
  text = lambda tokens, **kwargs: APPLY(PARAMS, tokens, method="encode_text", **kwargs)
  for place in range(5):
    assert (abs(text(TOKENS.at[:, place].add(7)) - text(TOKENS)).max(-1) > 1e-3).all()
  valid = jnp.array([[True, False, True, True, True]] * 3)
  np.testing.assert_array_equal(text(TOKENS, valid=valid), text(TOKENS.at[:, 1].add(7), valid=valid))


def test_patches_are_seen_and_what_fills_none_is_not():
  same = APPLY(PARAMS, IMAGE, method="encode_image")
  np.testing.assert_array_equal(APPLY(PARAMS, IMAGE.at[:, 6].add(1).at[:, :, 6].add(1), method="encode_image"), same)
  assert (abs(APPLY(PARAMS, IMAGE.at[:, 5, 5].add(1), method="encode_image") - same).max(-1) > 1e-3).all()


def test_the_image_tower_classifies_alone():
  model = zoo.build("siglip", **IMAGE_SIZES, head="classify", num_classes=5)
  out = model.apply({"params": filled(model, *model.example())}, IMAGE)
  assert {name: x.shape for name, x in out.items()} == {"hidden": (3, 4, 6), "pooled": (3, 6), "logits": (3, 5)}


def test_impossible_sizes_are_refused():
  mistakes = {
    "text_dim, text_depth, text_heads, vocab_size and max_length are needed.": IMAGE_SIZES,
    "patch_size 8 exceeds image_size 7. Make it smaller.": {**SIZES, "patch_size": 8},
    "head is 'mlm'. It may be: None, classify.": {**SIZES, "head": "mlm"},
  }
  for message, sizes in mistakes.items():
    with pytest.raises(UserError, match=message):
      zoo.build("siglip", **sizes)
