import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.generate import decode_step, prefill
from zoo.layers.attention import Attention
from zoo.layers.stack import unstack_layers

SIZES = dict(dim=6, num_heads=3)
TOKENS = jax.random.randint(jax.random.key(0), (2, 5), 0, 23)
MODELS = {
  "gpt": (zoo.build("gpt", vocab_size=23, max_length=16, depth=2, **SIZES), (TOKENS,)),
  "t5": (zoo.build("t5", vocab_size=23, depth=2, **SIZES), (TOKENS, TOKENS[:, :3])),
  "vit": (zoo.build("vit", image_size=6, patch_size=3, depth=2, **SIZES), (jnp.ones((2, 6, 6, 3)),)),
}
PARAMS = {name: filled(model, *inputs, seed=1) for name, (model, inputs) in MODELS.items()}


def without_the_door(monkeypatch):
  """Attention that gives no weights to anybody, and modules that sow nothing."""
  monkeypatch.setattr(Attention, "_on_weights", lambda self, train: None)
  monkeypatch.setattr(Attention, "sow", None)


@pytest.mark.parametrize("family", MODELS)
def test_a_model_that_nobody_watches_is_the_program_without_the_door(family, monkeypatch):
  model, inputs = MODELS[family]
  program = lambda: jax.jit(lambda params: model.apply({"params": params}, *inputs)).lower(PARAMS[family]).as_text()
  watched = jax.jit(lambda params: zoo.capture(model, params, *inputs)).lower(PARAMS[family]).as_text()
  with_door = program()
  without_the_door(monkeypatch)
  assert with_door == program() != watched


@pytest.mark.parametrize("family", ["gpt", "t5"])
def test_a_decoding_step_is_the_program_without_the_door(family, monkeypatch):
  model, params = MODELS[family][0], PARAMS[family]
  _, positions, state = jax.eval_shape(lambda: prefill(model, params, TOKENS, None, 3))
  program = lambda: jax.jit(lambda *given: decode_step(model, *given)).lower(params, state, *token).as_text()
  token = (TOKENS[:, 0], positions)
  with_door = program()
  without_the_door(monkeypatch)
  assert with_door == program()


@pytest.mark.parametrize("family", MODELS)
def test_what_was_captured_and_is_not_used_is_not_computed(family):
  model, inputs = MODELS[family]
  plain = jax.jit(lambda params: model.apply({"params": params}, *inputs))
  unused = jax.jit(lambda params: zoo.capture(model, params, *inputs)[0])
  used = jax.jit(lambda params: zoo.capture(model, params, *inputs))
  programs = [one.lower(PARAMS[family]).compile() for one in (plain, unused, used)]
  costs = [one.cost_analysis() for one in programs]
  assert costs[0]["flops"] == costs[1]["flops"] and costs[0]["bytes accessed"] == costs[1]["bytes accessed"]
  sizes = [one.memory_analysis().output_size_in_bytes for one in programs]
  assert sizes[2] > sizes[1] == sizes[0]


@pytest.mark.parametrize("scan", [True, False])
def test_an_encoder_decoder_shows_the_weights_of_both_attentions(scan):
  model = zoo.build("t5", vocab_size=23, depth=2, **SIZES, scan=scan)
  params = PARAMS["t5"] if not scan else filled(model, *MODELS["t5"][1], seed=1)
  out, captured = zoo.capture(model, params, *MODELS["t5"][1], valid=jnp.arange(5)[None] < jnp.array([[5], [4]]))
  layers = [f"{tower}/stack/layer_{i}" for tower in ("encoder", "decoder") for i in range(2)]
  weights = [f"{layer}/self_attention/weights" for layer in layers]
  weights += [f"{layer}/cross_attention/weights" for layer in layers[2:]]
  assert sorted(captured) == sorted(layers + weights)
  for name in weights:
    np.testing.assert_allclose(captured[name].sum(-1), 1, rtol=1e-5)
  assert captured[weights[-1]].shape == (2, 3, 3, 5) and captured[weights[2]].shape == (2, 3, 3, 3)
  np.testing.assert_array_equal(captured[weights[-1]][1, :, :, 4], 0)
  assert captured[layers[0]].shape == (2, 5, 6)
  last = captured[layers[3]]
  norm = params["decoder"]["norm"]["scale"]
  np.testing.assert_allclose(
    out["hidden"], last / jnp.sqrt((last**2).mean(-1, keepdims=True) + 1e-6) * norm[None, None], rtol=1e-4
  )


def test_a_scan_over_layers_of_two_kinds_shows_what_a_loop_shows():
  sizes = dict(vocab_size=23, max_length=16, depth=5, mlp_dim=10, window=2, pattern=["local", "global"], head_dim=2)
  scan, loop = (zoo.build("gemma", **SIZES, **sizes, scan=scan) for scan in (True, False))
  params = filled(scan, TOKENS)
  _, captured = zoo.capture(scan, params, TOKENS)
  _, wanted = zoo.capture(loop, unstack_layers(params), TOKENS)
  assert captured.keys() == wanted.keys() and len(captured) == 10
  for name, array in wanted.items():
    np.testing.assert_allclose(captured[name], array, rtol=1e-4, atol=1e-5)
