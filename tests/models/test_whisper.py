import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.build import shapes_of
from zoo.errors import UserError

SIZES = dict(vocab_size=23, source_length=7, max_length=11, mels=5, dim=6, depth=1, num_heads=3)
MODEL = zoo.build("whisper", **SIZES)
FEATURES = jax.random.normal(jax.random.key(0), (2, 14, 5))


def test_the_stem_convolves_twice_and_halves_the_frames():
  params = filled(MODEL, *MODEL.example())["stem"]
  out = jax.jit(lambda: MODEL.stem.apply({"params": params}, FEATURES))()

  def convolved(x, kernel, bias, stride):
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (0, 0)))
    windows = np.stack([x[:, i : i + 3] for i in range(0, x.shape[1] - 2, stride)], 1)
    y = np.einsum("btkm,kmd->btd", windows, kernel) + np.asarray(bias)[None, None]
    return np.asarray(jax.nn.gelu(y, approximate=False))

  want = FEATURES
  for i in range(2):
    want = convolved(want, params[f"conv_{i}"]["kernel"], params[f"conv_{i}"]["bias"], 1 + i)
  assert out.shape == (2, 7, 6)
  np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-5)


def test_the_encoder_starts_with_sinusoids_and_keeps_them():
  params = jax.jit(MODEL.init)(jax.random.key(0), *MODEL.example())["params"]
  place, half = np.arange(7)[:, None], 3
  angle = place * np.exp(-np.log(10_000) / (half - 1) * np.arange(half))[None]
  want = np.concatenate([np.sin(angle), np.cos(angle)], 1)
  np.testing.assert_allclose(params["encoder"]["positions"]["embedding"], want, atol=1e-5)
  tokens = jnp.ones((2, 4), jnp.int32)
  grads = jax.jit(jax.grad(lambda p: MODEL.apply({"params": p}, FEATURES, tokens)["logits"].std()))(params)
  assert not grads["encoder"]["positions"]["embedding"].any()
  assert grads["decoder"]["positions"]["embedding"].any()


def test_a_class_is_read_from_the_moments_that_count():
  model = zoo.build("whisper", **SIZES, head="classify", num_classes=3, projection_dim=4)
  params = {"params": filled(model, *model.example())}
  valid = jnp.arange(7)[None] < jnp.array([[7], [4]])
  encoded = model.apply(params, FEATURES, valid=valid, method="encode")
  out = model.apply(params, FEATURES, valid=valid)
  head = params["params"]["classify"]
  mean = (encoded[1, :4] @ head["project"]["kernel"]).mean(0) + head["project"]["bias"]
  np.testing.assert_allclose(out["logits"][1], mean @ head["out"]["kernel"] + head["out"]["bias"], rtol=1e-4, atol=1e-5)


def test_decoding_starts_with_the_start_token():
  params = {"params": filled(MODEL, *MODEL.example())}
  one = MODEL.apply(params, FEATURES)["logits"]
  np.testing.assert_array_equal(one, MODEL.apply(params, FEATURES, jnp.full((2, 1), MODEL.start_token))["logits"])


def test_features_of_another_shape_are_refused():
  params = {"params": filled(MODEL, *MODEL.example())}
  with pytest.raises(
    ValueError, match=r"features are float32 \[2, 14, 4\], the model needs floats \[batch, frames, 5\]"
  ):
    MODEL.apply(params, FEATURES[:, :, :4])
  with pytest.raises(ValueError, match="length 8 exceeds max_length 7"):
    MODEL.apply(params, jnp.zeros((1, 16, 5)))


def test_an_odd_width_is_refused():
  with pytest.raises(UserError, match="whisper: dim 9 is odd"):
    zoo.build("whisper", **{**SIZES, "dim": 9})


def test_shapes_alone_cost_no_memory():
  shapes = shapes_of(zoo.build("whisper", **SIZES | {"source_length": 10**9}))
  assert shapes["encoder"]["positions"]["embedding"].shape == (10**9, SIZES["dim"])
