import jax
import jax.numpy as jnp
import numpy as np

import zoo
from tests.filled import filled

SIZES = dict(vocab_size=23, max_length=20, dim=6, depth=2, num_heads=3)
TOKENS = jax.random.randint(jax.random.key(0), (2, 7), 0, 23)


def model_and_variables(**sizes):
  model = zoo.build("openai_gpt", **SIZES, **sizes)
  return model, {"params": filled(model, *model.example())}


def test_gpt_does_not_see_the_future():
  model, params = model_and_variables()
  before, after = (model.apply(params, tokens) for tokens in (TOKENS, TOKENS.at[:, 5].add(1) % 23))
  np.testing.assert_array_equal(before[:, :5], after[:, :5])
  assert (abs(before - after)[:, 5:].max(-1) > 1e-4).all()


def test_generated_text_is_that_of_the_full_pass_however_the_prompts_are_padded():
  model, params = model_and_variables()
  valid = jnp.array([[True] * 5, [False, False, True, True, True]])
  out = zoo.generate(model, params["params"], TOKENS[:, :5], valid=valid, max_new_tokens=6)
  apply = jax.jit(model.apply)
  for row, start in ((0, 0), (1, 2)):
    full = apply(params, jnp.pad(out[row : row + 1, start:], ((0, 0), (0, start))))
    np.testing.assert_array_equal(out[row, 5:], full[0, 4 - start : 10 - start].argmax(-1))


def test_what_the_last_layer_gives_is_normed_and_normed_no_more():
  model, params = model_and_variables(head=None)
  norm = params["params"]["stack"]["layer_1"]["mlp_norm"]
  norm["scale"], norm["bias"] = jnp.ones(6), jnp.zeros(6)
  hidden = model.apply(params, TOKENS)["hidden"]
  np.testing.assert_allclose(hidden.mean(-1), 0, atol=1e-5)
  np.testing.assert_allclose(hidden.std(-1), 1, atol=1e-2)


def test_each_choice_is_scored_for_itself_at_its_last_token():
  model, params = model_and_variables(head="multiple_choice")
  tokens = jax.random.randint(jax.random.key(1), (2, 3, 5), 0, 23)
  valid = jnp.arange(5)[None, None] < jnp.array([[5, 3, 4], [1, 5, 2]])[:, :, None]
  out = model.apply(params, tokens, valid=valid)
  alone = model.apply(params, tokens[1:, 2:, :2])
  np.testing.assert_allclose(out["logits"][1, 2], alone["logits"][0, 0], rtol=1e-5)
  np.testing.assert_allclose(out["lm"][1, 2, :2], alone["lm"][0, 0], rtol=1e-4, atol=1e-5)
  read = model.apply(params, tokens, valid=valid, read=valid.sum(-1) - 1)
  np.testing.assert_array_equal(read["logits"], out["logits"])
  assert out["lm"].shape == (2, 3, 5, 23)
