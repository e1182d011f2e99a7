import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError
from zoo.models.gemma import OneCentredNorm, ScaledEmbed

SIZES = dict(vocab_size=23, max_length=30, dim=6, num_heads=6, num_kv_heads=2, head_dim=4, mlp_dim=10)
THIRD = dict(depth=5, window=3, pattern=["local", "local", "global"], sandwich=True, qk_norm=True, local_theta=50.0)
TOKENS = jax.random.randint(jax.random.key(0), (2, 9), 0, 23)


def model_and_variables(**sizes):
  model = zoo.build("gemma", **SIZES, **sizes)
  return model, {"params": filled(model, *model.example())}


def test_gemma_does_not_see_the_future():
  model, params = model_and_variables(**THIRD)
  before, after = (model.apply(params, tokens) for tokens in (TOKENS, TOKENS.at[:, 5].add(1) % 23))
  np.testing.assert_array_equal(before[:, :5], after[:, :5])
  assert (abs(before - after)[:, 5:].max(-1) > 1e-4).all()


def test_generated_text_is_that_of_the_full_pass_however_the_prompts_are_padded():
  model, params = model_and_variables(**THIRD)
  valid = jnp.array([[True] * 5, [False, False, True, True, True]])
  out = zoo.generate(model, params["params"], TOKENS[:, :5], valid=valid, max_new_tokens=6)
  apply = jax.jit(model.apply)
  for row, start in ((0, 0), (1, 2)):
    full = apply(params, jnp.pad(out[row : row + 1, start:], ((0, 0), (0, start))))
    np.testing.assert_array_equal(out[row, 5:], full[0, 4 - start : 10 - start].argmax(-1))


def test_both_ways_a_local_layer_sees_half_of_its_window_on_each_side():
  model, params = model_and_variables(depth=1, head=None, window=5, bidirectional=True)
  before, after = (model.apply(params, tokens)["hidden"] for tokens in (TOKENS, TOKENS.at[:, 4].add(1) % 23))
  changed = abs(before - after).max((0, 2)) > 1e-4
  assert changed.tolist() == [False] * 2 + [True] * 5 + [False] * 2


def test_logits_stay_below_their_cap():
  model, params = model_and_variables(depth=1, cap=0.5)
  plain, _ = model_and_variables(depth=1)
  logits = plain.apply(params, TOKENS)
  assert abs(logits).max() > 0.5
  np.testing.assert_allclose(model.apply(params, TOKENS), 0.5 * jnp.tanh(logits / 0.5), rtol=1e-5, atol=1e-6)


def test_a_cap_on_attention_evens_its_weights_out():
  plain, params = model_and_variables(depth=1, query_scalar=1)
  capped, _ = model_and_variables(depth=1, query_scalar=1, attention_cap=1e-3)
  weights = []
  for model in (plain, capped):
    _, state = model.apply(params, TOKENS, mutable=["intermediates"])
    weights += state["intermediates"]["stack"]["layer_0"]["self_attention"]["weights"]
  even = jnp.tril(jnp.ones((9, 9))) / jnp.arange(1, 10)[:, None]
  np.testing.assert_allclose(weights[1], jnp.broadcast_to(even[None, None], weights[1].shape), atol=1e-3)
  assert abs(weights[0] - weights[1]).max() > 0.1


def test_embeddings_are_scaled_and_norms_are_centred_at_one():
  embed, norm = ScaledEmbed(23, 9), OneCentredNorm(1e-6)
  table = jax.random.normal(jax.random.key(1), (23, 9))
  np.testing.assert_allclose(embed.apply({"params": {"embedding": table}}, jnp.array([4])), 3 * table[4:5], rtol=1e-6)
  y = norm.apply({"params": {"scale": jnp.full(9, 0.5)}}, table)
  np.testing.assert_allclose((y**2).mean(-1), jnp.full(23, 2.25), rtol=1e-4)
  assert not norm.init(jax.random.key(0), table)["params"]["scale"].any()


def test_impossible_sizes_are_refused():
  for message, sizes in {
    "bidirectional is True and head is 'lm'": dict(bidirectional=True),
    "cap is 0.0. It must be above 0, or None.": dict(cap=0.0),
    "query_scalar is 0. It must be at least 1.": dict(query_scalar=0),
  }.items():
    with pytest.raises(UserError, match=f"gemma: {message}"):
      zoo.build("gemma", **SIZES, depth=1, **sizes)
