import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError

SIZES = dict(vocab_size=23, max_length=11, dim=6, depth=2, num_heads=3, pad=1)
MODEL = zoo.build("roberta", **SIZES)
PARAMS = {"params": filled(MODEL, *MODEL.example())}
APPLY = jax.jit(MODEL.apply)


def test_padding_takes_no_position():
  tokens = jnp.array([[5, 1, 9, 1, 1, 7]])
  spread, dense = APPLY(PARAMS, tokens, valid=tokens != 1)["mlm"], APPLY(PARAMS, jnp.array([[5, 9, 7]]))["mlm"]
  np.testing.assert_allclose(spread[:, jnp.array([0, 2, 5])], dense, rtol=1e-4, atol=1e-4)


def test_nothing_is_learned_for_padding():
  tokens = jnp.array([[5, 1, 9, 1, 1, 7]])
  grads = jax.jit(jax.grad(lambda params: (APPLY(params, tokens)["hidden"] ** 3).sum()))(PARAMS)["params"]
  assert not grads["embed"]["embedding"][1].any() and not grads["positions"]["embedding"][1].any()
  assert grads["embed"]["embedding"][5].any() and grads["positions"]["embedding"][2].any()


def test_a_text_of_max_length_fits_and_no_longer_one():
  APPLY(PARAMS, jnp.full((1, 11), 2))
  with pytest.raises(ValueError, match="length 12 exceeds max_length 11"):
    APPLY(PARAMS, jnp.full((1, 12), 2))


def test_impossible_sizes_are_refused():
  with pytest.raises(UserError, match="pad is 23. It must be a token id: at least 0, below vocab_size 23."):
    zoo.build("roberta", **{**SIZES, "pad": 23})
  with pytest.raises(UserError, match="head is 'pretraining'. It may be: mlm, classify, multiple_choice"):
    zoo.build("roberta", **SIZES, head="pretraining")
