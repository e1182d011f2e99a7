import functools

import jax
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError
from zoo.generate import decode_step, prefill
from zoo.layers.stack import stack_layers

SIZES = dict(vocab_size=23, max_length=40, dim=6, num_heads=6, num_kv_heads=2, head_dim=4, mlp_dim=10)
LOCAL = dict(depth=5, window=3, pattern=["local", "global"], qk_norm=True)  # Two turns and a layer.
TOKENS = np.random.default_rng(0).integers(0, 23, (2, 9), np.int32)
MODEL = zoo.build("llama", **SIZES, **LOCAL)
PARAMS = filled(MODEL, *MODEL.example())


@functools.partial(jax.jit, static_argnums=0)
def compiled(model, params, tokens, **keywords):
  return model.apply({"params": params}, tokens, **keywords)


def apply(tokens, model=MODEL, params=PARAMS, **keywords):
  return jax.device_get(compiled(model, params, tokens, **keywords))


def other_at(place):
  """TOKENS with another token at this place of every row."""
  return (TOKENS + (np.arange(9) == place)) % 23


def test_llama_does_not_see_the_future():
  before, after = apply(TOKENS), apply(other_at(5))
  np.testing.assert_array_equal(before[:, :5], after[:, :5])
  assert (abs(before - after)[:, 5:].max(-1) > 1e-4).all()


def test_a_local_layer_sees_its_window_only():
  model = zoo.build("llama", **SIZES, depth=2, window=3)
  params = filled(model, *model.example())
  before, after = (apply(tokens, model, params) for tokens in (TOKENS, other_at(1)))
  changed = abs(before - after).max((0, 2)) > 1e-4
  assert changed.tolist() == [False] + [True] * 5 + [False] * 3  # Two more tokens see it in each layer.


@pytest.mark.parametrize("scan", [False, True])
def test_prefill_and_steps_give_the_logits_of_the_full_pass(scan):
  model, params = MODEL, PARAMS
  if scan:
    model = zoo.build("llama", **SIZES, **LOCAL, scan=True)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *model.example())["params"]
    params = stack_layers(PARAMS, shapes)
    assert sorted(params["stack"]) == ["layer_4", "layers"]
  full = apply(TOKENS)
  begin = jax.jit(lambda *args: prefill(model, params, *args, 4))
  logits, positions, cache = begin(TOKENS[:, :5], np.ones((2, 5), bool))
  step = jax.jit(lambda *args: decode_step(model, params, *args))
  for i in range(5, 9):
    np.testing.assert_allclose(logits, full[:, i - 1], rtol=1e-4, atol=1e-4)
    logits, cache = step(cache, TOKENS[:, i], positions)
    positions += 1
  np.testing.assert_allclose(logits, full[:, 8], rtol=1e-4, atol=1e-4)


def test_generated_text_is_that_of_the_full_pass_however_the_prompts_are_padded():
  valid = np.array([[True] * 5, [False, False, True, True, True]])
  out = np.asarray(zoo.generate(MODEL, PARAMS, TOKENS[:, :5], valid=valid, max_new_tokens=6))
  for row, start in ((0, 0), (1, 2)):
    full = apply(np.pad(out[row : row + 1, start:], ((0, 0), (0, start))))
    np.testing.assert_array_equal(out[row, 5:], full[0, 4 - start : 10 - start].argmax(-1))


def test_padding_changes_nothing_for_the_rest():
  valid = np.array([[True] * 4 + [False] * 5, [True] * 9])
  out = apply(TOKENS, valid=valid)
  np.testing.assert_allclose(out[:1, :4], apply(TOKENS[:1, :4]), rtol=1e-4, atol=1e-5)


def test_logits_where_asked_are_those_of_the_whole():
  predict = np.array([[3, 0, 6], [5, 5, 1]])
  some, whole = apply(TOKENS, predict=predict), apply(TOKENS)
  np.testing.assert_allclose(some, np.take_along_axis(whole, predict[:, :, None], 1), rtol=1e-5, atol=1e-5)


def test_classes_are_read_at_the_last_real_token():
  build = lambda **more: zoo.build("llama", **SIZES, depth=2, head="classify", num_classes=5, **more)
  model, valid = build(), np.array([[True] * 4 + [False] * 5, [True] * 9])
  params = filled(model, *model.example())
  logits = lambda tokens, model=model, **keywords: apply(tokens, model, params, **keywords)["logits"]
  want = np.concatenate([logits(row) for row in (TOKENS[:1, :4], TOKENS[1:])])
  np.testing.assert_allclose(logits(TOKENS, valid=valid), want, rtol=1e-4, atol=1e-5)
  padded = np.where(valid, np.where(TOKENS == 7, 8, TOKENS), 7)
  np.testing.assert_allclose(logits(padded, build(pad=7)), logits(padded, valid=valid), rtol=1e-4, atol=1e-5)


def test_impossible_patterns_are_refused():
  for message, sizes in {
    "pattern is \\['far'\\]. It must be a list of 'local' and 'global'.": dict(pattern=["far"]),
    "pattern is \\[\\]": dict(pattern=[]),
    "pattern has local layers, but window is None. Set window.": dict(pattern=["local"]),
    "window is 0. It must be at least 1.": dict(window=0),
    "rope.name is 'ntk'. It must be one of: linear, dynamic, llama3, yarn.": dict(rope={"name": "ntk"}),
    "num_classes None. Give num_classes with a classifying head, and only with one.": dict(head="classify"),
  }.items():
    with pytest.raises(UserError, match=f"llama: .*{message}"):
      zoo.build("llama", **SIZES, depth=1, **sizes)
