import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError
from zoo.generate import decode_step, prefill
from zoo.layers.stack import stack_layers

SIZES = dict(vocab_size=23, max_length=40, dim=6, num_heads=6, num_kv_heads=2, head_dim=4, mlp_dim=10)
LOCAL = dict(depth=5, window=3, pattern=["local", "global"], qk_norm=True)  # Two turns and a layer.
TOKENS = jax.random.randint(jax.random.key(0), (2, 9), 0, 23)
MODEL = zoo.build("llama", **SIZES, **LOCAL)
PARAMS = filled(MODEL, *MODEL.example())
APPLY = jax.jit(MODEL.apply)


def test_llama_does_not_see_the_future():
  before, after = APPLY({"params": PARAMS}, TOKENS), APPLY({"params": PARAMS}, TOKENS.at[:, 5].add(1) % 23)
  np.testing.assert_array_equal(before[:, :5], after[:, :5])
  assert (abs(before - after)[:, 5:].max(-1) > 1e-4).all()


def test_a_local_layer_sees_its_window_only():
  model = zoo.build("llama", **SIZES, depth=2, window=3)
  params = {"params": filled(model, *model.example())}
  before, after = (model.apply(params, tokens) for tokens in (TOKENS, TOKENS.at[:, 1].add(1) % 23))
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
  full = APPLY({"params": PARAMS}, TOKENS)
  logits, positions, cache = prefill(model, params, TOKENS[:, :5], jnp.ones((2, 5), bool), 4)
  step = jax.jit(lambda *args: decode_step(model, params, *args))
  for i in range(5, 9):
    np.testing.assert_allclose(logits, full[:, i - 1], rtol=1e-4, atol=1e-4)
    logits, cache = step(cache, TOKENS[:, i], positions)
    positions += 1
  np.testing.assert_allclose(logits, full[:, 8], rtol=1e-4, atol=1e-4)


def test_generated_text_is_that_of_the_full_pass_however_the_prompts_are_padded():
  valid = jnp.array([[True] * 5, [False, False, True, True, True]])
  out = zoo.generate(MODEL, PARAMS, TOKENS[:, :5], valid=valid, max_new_tokens=6)
  for row, start in ((0, 0), (1, 2)):
    full = APPLY({"params": PARAMS}, jnp.pad(out[row : row + 1, start:], ((0, 0), (0, start))))
    np.testing.assert_array_equal(out[row, 5:], full[0, 4 - start : 10 - start].argmax(-1))


def test_padding_changes_nothing_for_the_rest():
  valid = jnp.array([[True] * 4 + [False] * 5, [True] * 9])
  out = APPLY({"params": PARAMS}, TOKENS, valid=valid)
  np.testing.assert_allclose(out[:1, :4], APPLY({"params": PARAMS}, TOKENS[:1, :4]), rtol=1e-4, atol=1e-5)


def test_logits_where_asked_are_those_of_the_whole():
  predict = jnp.array([[3, 0, 6], [5, 5, 1]])
  some, whole = (MODEL.apply({"params": PARAMS}, TOKENS, predict=at) for at in (predict, None))
  np.testing.assert_allclose(some, jnp.take_along_axis(whole, predict[:, :, None], 1), rtol=1e-5, atol=1e-5)


def test_classes_are_read_at_the_last_real_token():
  build = lambda **more: zoo.build("llama", **SIZES, depth=2, head="classify", num_classes=5, **more)
  model, valid = build(), jnp.array([[True] * 4 + [False] * 5, [True] * 9])
  params = {"params": filled(model, *model.example())}
  want = jnp.concatenate([model.apply(params, row)["logits"] for row in (TOKENS[:1, :4], TOKENS[1:])])
  np.testing.assert_allclose(model.apply(params, TOKENS, valid=valid)["logits"], want, rtol=1e-4, atol=1e-5)
  padded = jnp.where(valid, jnp.where(TOKENS == 7, 8, TOKENS), 7)
  want = model.apply(params, padded, valid=valid)["logits"]
  np.testing.assert_allclose(build(pad=7).apply(params, padded)["logits"], want, rtol=1e-4, atol=1e-5)


def test_impossible_patterns_are_refused():
  for message, sizes in {
    "pattern is \\['far'\\]. It is a list of 'local' and 'global'.": dict(pattern=["far"]),
    "pattern is \\[\\]": dict(pattern=[]),
    "pattern has local layers and window is None. Say how many tokens they see.": dict(pattern=["local"]),
    "window is 0. It must be at least 1.": dict(window=0),
    "rope has the name 'ntk'. It may be: linear, dynamic, llama3, yarn.": dict(rope={"name": "ntk"}),
    "num_classes None. Heads that classify and num_classes go together.": dict(head="classify"),
  }.items():
    with pytest.raises(UserError, match=f"llama: .*{message}"):
      zoo.build("llama", **SIZES, depth=1, **sizes)
