"""Dense layers and convolutions: Flax's own, to the bit, in parameters and outputs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers import initial
from zoo.layers.dense import Conv, Dense, DenseGeneral
from zoo.layers.embeddings import Embed

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 3, 7)), jnp.float32)
TOKENS = jnp.array([[1, 0, 4]])
PAIRS = {
  "dense": (Dense(5), nn.Dense(5), X),
  "dense without a bias": (Dense(5, use_bias=False), nn.Dense(5, use_bias=False), X),
  "to heads": (DenseGeneral((3, 2)), nn.DenseGeneral((3, 2)), X),
  "from heads": (DenseGeneral(5, axis=(-2, -1)), nn.DenseGeneral(5, axis=(-2, -1)), X),
  "convolution": (Conv(5, (3, 2)), nn.Conv(5, (3, 2), kernel_init=initial.lecun_normal()), X),
  "with strides": (Conv(5, (3,), 2, 1), nn.Conv(5, (3,), 2, 1, kernel_init=initial.lecun_normal()), X[0]),
  "embedding": (Embed(5, 3), nn.Embed(5, 3), TOKENS),
  "one row": (Embed(1, 3), nn.Embed(1, 3), TOKENS),
}


@pytest.mark.parametrize("name", PAIRS)
def test_parameters_and_outputs_are_those_of_flax(name):
  ours, theirs, x = PAIRS[name]
  key = jax.random.key(1)
  params = theirs.init(key, x)["params"]
  jax.tree.map(np.testing.assert_array_equal, ours.init(key, x)["params"], params)
  params = jax.tree.map(lambda array: array + 0.3, params)  # A bias that is not 0.
  for dtype in (None, jnp.bfloat16):
    outputs = [module.clone(dtype=dtype).apply({"params": params}, x) for module in (ours, theirs)]
    assert outputs[0].dtype == outputs[1].dtype
    np.testing.assert_array_equal(*outputs)


def test_tokens_are_whole_numbers():
  with pytest.raises(ValueError, match="Tokens are float32"):
    Embed(5, 3).init(jax.random.key(0), jnp.zeros((1, 3)))
