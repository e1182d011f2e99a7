import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError

SIZES = dict(
  **dict(image_size=6, patch_size=3, image_dim=6, image_depth=1, image_heads=3),
  **dict(text_dim=10, text_depth=2, text_heads=5, embed_dim=7, vocab_size=23, max_length=11),
)
MODEL = zoo.build("clip", **SIZES)
APPLY = jax.jit(MODEL.apply, static_argnames="method")
IMAGE = jax.random.normal(jax.random.key(0), (3, 6, 6, 3))
EOS = 22
TOKENS = jnp.array([[1, 2, 3, EOS, 0, 0, 0], [4, EOS, 5, EOS, 0, 0, 0], [1, 2, 3, 4, 5, 6, EOS]])


def variables_of(model=MODEL):
  return {"params": filled(model, *model.example())}


@functools.partial(jax.jit, static_argnums=0)
def encoded(model, params, tokens, valid):
  return model.apply(params, tokens, valid=valid, method="encode_text")


def text(tokens, model=MODEL, valid=None):
  """Vectors of texts of seven tokens: of one shape they share a program."""
  valid = np.ones(tokens.shape, bool) if valid is None else valid
  return encoded(model, variables_of(model), tokens, valid)


def test_embeddings_have_unit_length():
  out = APPLY(variables_of(), IMAGE, TOKENS)
  assert set(out) == {"image", "text", "scale"}
  for name in ("image", "text"):
    np.testing.assert_allclose((out[name] ** 2).sum(-1), 1, rtol=1e-5)


def test_towers_work_alone():
  out = APPLY(variables_of(), IMAGE, TOKENS)
  np.testing.assert_allclose(APPLY(variables_of(), IMAGE, method="encode_image"), out["image"], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(text(TOKENS), out["text"], rtol=1e-5, atol=1e-6)


def start(model, name):
  """Parameters of which the one of this name is as it begins: no program draws the others."""
  first = jax.jit(lambda rng: model.init(rng, *model.example())["params"][name])(jax.random.key(1))
  return {"params": {**variables_of(model)["params"], name: first}}


def test_the_scale_starts_at_the_temperature_of_the_paper():
  np.testing.assert_allclose(APPLY(start(MODEL, "logit_scale"), IMAGE, TOKENS)["scale"], 1 / 0.07, rtol=1e-5)


def test_a_logit_bias_makes_it_the_model_of_the_sigmoid_loss():
  model = zoo.build("clip", **SIZES, logit_bias=-10.0)
  params = start(model, "logit_bias")
  bias = jax.jit(lambda params: model.apply(params, *model.example())["bias"])(params)
  assert params["params"]["logit_bias"] == -10 == bias


def test_text_is_causal_and_read_at_its_first_end():
  same = text(TOKENS)
  np.testing.assert_allclose(text(TOKENS.at[0, 4:].set(9).at[1, 2:].set(9)), same, rtol=1e-5, atol=1e-6)
  assert (abs(text(TOKENS.at[:, 0].set(9)) - same).max(-1) > 1e-3).all()


def test_text_without_an_end_is_read_at_its_last_valid_token():
  tokens = jnp.array([[1, 2, 3, 4, 5, 6, 7], [1, 2, 8, 9, 10, 3, 11], [3, 1, 2, 4, 5, 6, 12]])
  valid = jnp.arange(7)[None] < jnp.array([[3], [6], [1]])
  model = zoo.build("clip", **SIZES, eos=3)
  np.testing.assert_allclose(text(tokens, valid=valid), text(tokens, model), rtol=1e-5, atol=1e-6)
  tokens = tokens.at[:, -1].set(21)
  np.testing.assert_allclose(text(tokens), text(tokens, zoo.build("clip", **SIZES, eos=21)), rtol=1e-5, atol=1e-6)


def test_padding_before_the_end_is_never_seen():
  tokens = jnp.array([[1, 9, 2, EOS, 0, 0, 0]] * 3)
  valid = jnp.array([[True, False, True, True, False, False, False]] * 3)
  np.testing.assert_array_equal(text(tokens, valid=valid), text(tokens.at[:, 1].set(5), valid=valid))


def test_wrong_inputs_are_refused():
  with pytest.raises(ValueError, match="Images have shape"):
    APPLY(variables_of(), IMAGE[:, :3], TOKENS)
  with pytest.raises(ValueError, match="length 12 exceeds max_length 11"):
    text(jnp.zeros((1, 12), jnp.int32))


def test_impossible_sizes_are_refused():
  mistakes = {
    "eos is 23. It must be a token id: at least 0, below vocab_size 23.": {"eos": 23},
    "image_dim 7 does not divide into image_heads 3. Make image_dim a multiple of image_heads, e.g. 6.": {
      "image_dim": 7
    },
    "image_size 6 does not divide into patches of patch_size 5": {"patch_size": 5},
    "embed_dim is 0.": {"embed_dim": 0},
    "patch_size 3 is not a multiple of 2, the stride of 1 stem_dims": {"stem_dims": [4]},
    "clip.stem_dims is 4": {"stem_dims": 4},
  }
  for message, sizes in mistakes.items():
    with pytest.raises(UserError, match=message):
      zoo.build("clip", **{**SIZES, **sizes})


def test_a_stem_leaves_as_many_patches():
  model = zoo.build("clip", **{**SIZES, "image_size": 12, "patch_size": 4, "stem_dims": [5, 4]})
  params = variables_of(model)["params"]["image"]
  assert params["patches"]["kernel"].shape == (1, 1, 4, 6) and params["positions"]["embedding"].shape == (10, 6)


def test_starts_with_the_spread_of_their_code():
  model = zoo.build(
    "clip", **{**SIZES, "text_dim": 50, "image_dim": 48, "image_size": 30, "text_depth": 8, "scan": True}
  )
  params = jax.jit(lambda rng: model.init(rng, *model.example()))(jax.random.key(0))["params"]
  layer = jax.tree.map(lambda x: x[3], params["text"]["stack"]["layers"])
  wanted = [
    (layer["self_attention"]["value"]["kernel"], 50**-0.5),
    (layer["self_attention"]["out"]["kernel"], 50**-0.5 / 4),  # sqrt(2 * 8) = 4
    (layer["feed_forward"]["up"]["kernel"], 100**-0.5),
    (layer["feed_forward"]["down"]["kernel"], 50**-0.5 / 4),
    (params["text"]["embed"]["embedding"], 0.02),
    (params["text"]["positions"]["embedding"], 0.01),
    (params["image"]["positions"]["embedding"], 48**-0.5),
    (params["image"]["patches"]["kernel"], (3 * 27) ** -0.5),
  ]
  for array, std in wanted:
    np.testing.assert_allclose(array.std(), std, rtol=0.08)
