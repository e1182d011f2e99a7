import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.layers.stack import unstack_layers

MODEL = zoo.build("gpt", vocab_size=23, max_length=11, dim=6, depth=2, num_heads=3)
APPLY = jax.jit(MODEL.apply, static_argnames="mutable")
TOKENS = jax.random.randint(jax.random.key(0), (2, 7), 0, 23)


def variables_of(model=MODEL):
  return {"params": filled(model, *model.example())}


def test_gpt_does_not_see_the_future():
  params, apply = variables_of(), APPLY
  before, after = apply(params, TOKENS), apply(params, TOKENS.at[:, 5].add(1) % 23)
  np.testing.assert_array_equal(before[:, :5], after[:, :5])
  assert (abs(before - after)[:, 5:].max(-1) > 1e-4).all()


def test_padding_changes_nothing_for_the_rest():
  params = variables_of()
  valid = jnp.array([[True] * 4 + [False] * 3, [True] * 7])
  out = APPLY(params, TOKENS, valid=valid)
  np.testing.assert_allclose(out[:1, :4], APPLY(params, TOKENS[:1, :4]), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(out[1], APPLY(params, TOKENS)[1], rtol=1e-4, atol=1e-5)


def test_padding_to_the_left_changes_nothing_where_positions_say_so():
  params = variables_of()
  valid, positions = jnp.arange(7)[None] >= 3, jnp.maximum(jnp.arange(7) - 3, 0)[None]
  out = APPLY(params, TOKENS[:1], valid=valid, positions=positions)
  np.testing.assert_allclose(out[:, 3:], APPLY(params, TOKENS[:1, 3:]), rtol=1e-4, atol=1e-5)


def test_logits_where_asked_are_those_of_the_whole():
  params = variables_of()
  predict = jnp.array([[3, 0, 6], [5, 5, 1]])
  some, whole = APPLY(params, TOKENS, predict=predict), APPLY(params, TOKENS)
  np.testing.assert_allclose(some, jnp.take_along_axis(whole, predict[:, :, None], 1), rtol=1e-5, atol=1e-5)


def test_the_output_layer_is_the_embedding():
  params = variables_of()
  doubled = {**params["params"], "norm": jax.tree.map(lambda x: 2 * x, params["params"]["norm"])}
  np.testing.assert_allclose(APPLY({"params": doubled}, TOKENS), 2 * APPLY(params, TOKENS), rtol=1e-5, atol=1e-5)
  assert set(params["params"]) == {"embed", "positions", "stack", "norm"}


def test_a_cache_needs_positions():
  params = variables_of()
  _, cache = APPLY(params, TOKENS, mutable=("cache",))
  with pytest.raises(ValueError, match="Decoding with a cache needs positions"):
    APPLY({**params, **cache}, TOKENS[:, :1], mutable=("cache",))


def test_a_text_longer_than_max_length_is_refused():
  with pytest.raises(ValueError, match="length 12 exceeds max_length 11"):
    APPLY(variables_of(), jnp.zeros((1, 12), jnp.int32))


def test_tokens_of_another_shape_are_refused():
  with pytest.raises(ValueError, match=r"tokens are int32 \[7\]"):
    APPLY(variables_of(), TOKENS[0])


def test_starts_with_the_spread_of_the_paper():
  model = zoo.build("gpt", vocab_size=97, max_length=64, dim=64, depth=8, num_heads=4, scan=True)
  params = jax.jit(lambda rng: model.init(rng, *model.example()))(jax.random.key(0))["params"]
  layer = unstack_layers(params)["stack"]["layer_1"]
  spread = {
    0.02: [
      params["embed"]["embedding"],
      layer["self_attention"]["query"]["kernel"],
      layer["feed_forward"]["up"]["kernel"],
    ],
    0.01: [params["positions"]["embedding"]],
    0.02 / 4: [layer["self_attention"]["out"]["kernel"], layer["feed_forward"]["down"]["kernel"]],  # sqrt(2 * 8) = 4
  }
  for std, arrays in spread.items():
    np.testing.assert_allclose([array.std() for array in arrays], std, rtol=0.06)
  assert not layer["self_attention"]["query"]["bias"].any() and (layer["mlp_norm"]["scale"] == 1).all()
