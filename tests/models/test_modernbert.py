import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError

SIZES = dict(vocab_size=23, max_length=30, dim=6, num_heads=3, mlp_dim=10, window=5)
TOKENS = jax.random.randint(jax.random.key(0), (2, 9), 0, 23)
VALID = jnp.array([[True] * 9, [False] * 2 + [True] * 5 + [False] * 2])


def model_and_variables(**sizes):
  model = zoo.build("modernbert", **SIZES, **sizes)
  return model, {"params": filled(model, *model.example())}


@functools.partial(jax.jit, static_argnums=0, static_argnames="mutable")
def applied(model, params, tokens, mutable=False, **options):
  """`model.apply` as one program; operation by operation it would be a hundred."""
  return model.apply(params, tokens, mutable=mutable, **options)


def visible_from(model, params, place=4):
  """Which states one token changes."""
  before, after = (applied(model, params, tokens)["hidden"] for tokens in (TOKENS, TOKENS.at[:, place].add(1) % 23))
  return (abs(before - after).max((0, 2)) > 1e-5).tolist()


def test_a_local_layer_sees_half_of_its_window_on_each_side_and_a_global_one_all():
  assert (
    visible_from(*model_and_variables(depth=1, head=None, pattern=["local"])) == [False] * 2 + [True] * 5 + [False] * 2
  )
  assert visible_from(*model_and_variables(depth=1, head=None)) == [True] * 9


def test_kinds_of_layers_take_turns_from_the_first_on():
  _, params = model_and_variables(depth=4, head=None)
  tokens = TOKENS[:, :8]

  def weights(pattern):
    model = zoo.build("modernbert", **SIZES, depth=4, head=None, pattern=pattern)
    _, state = applied(model, params, tokens, mutable="intermediates")
    layers = [state["intermediates"]["first"]["layer_0"]]
    layers += [state["intermediates"]["stack"][f"layer_{i}"] for i in range(3)]
    return [bool(layer["self_attention"]["weights"][0][0, 0, 0, 7] > 0) for layer in layers]

  assert weights(None) == [True, False, False, True]
  assert weights(["local", "global"]) == [False, True, False, True]
  assert weights(["local", "local", "global", "local", "local"]) == [False, False, True, False]


def test_what_leaves_the_norm_of_the_embeddings_is_not_normed_again():
  _, params = model_and_variables(depth=2, head=None)
  first, second = params["params"]["first"]["layer_0"], params["params"]["stack"]["layer_0"]
  assert second.keys() - first.keys() == {"attention_norm"} and not first.keys() - second.keys()


def test_padding_changes_nothing():
  for sizes in (dict(head="mlm"), dict(head="classify", num_classes=3, pooling="mean")):
    model, params = model_and_variables(depth=4, **sizes)
    out = applied(model, params, TOKENS, valid=VALID)
    other = applied(model, params, jnp.where(VALID, TOKENS, (TOKENS + 1) % 23), valid=VALID)
    np.testing.assert_allclose(jnp.where(VALID[:, :, None], out["hidden"] - other["hidden"], 0), 0, atol=1e-6)
    if "logits" in out:
      np.testing.assert_allclose(out["logits"], other["logits"], atol=1e-6)
      alone = applied(model, params, TOKENS[1:, 2:7])["logits"]  # Rotary positions are relative.
      np.testing.assert_allclose(out["logits"][1:], alone, rtol=1e-4, atol=1e-4)


def test_logits_where_they_are_wanted_are_those_of_everywhere():
  model, params = model_and_variables(depth=2)
  wanted = jnp.array([[3, 1], [8, 8]])
  some, every = (applied(model, params, TOKENS, predict=where)["mlm"] for where in (wanted, None))
  np.testing.assert_allclose(some, jnp.take_along_axis(every, wanted[:, :, None], 1), rtol=1e-5, atol=1e-5)


def test_impossible_sizes_are_refused():
  for message, sizes in {
    "pattern is .'near'.. It must be a list of 'local' and 'global'.": dict(pattern=["near"]),
    "pooling is 'max'. It may be: cls, mean.": dict(pooling="max"),
    "window is 0. It must be at least 1.": dict(window=0),
    "head is 'lm'. It may be: mlm, classify": dict(head="lm"),
  }.items():
    with pytest.raises(UserError, match=f"modernbert: {message}"):
      zoo.build("modernbert", **{**SIZES, "depth": 1, **sizes})
