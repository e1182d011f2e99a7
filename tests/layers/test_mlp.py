import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.filled import filled
from zoo.layers.mlp import ACTIVATIONS, MLP, GatedMLP, gated

FORMULAS = {
  "relu": lambda x: max(x, 0.0),
  "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
  "gelu_tanh": lambda x: x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
  "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
  "silu": lambda x: x / (1 + math.exp(-x)),
}
X = jax.random.normal(jax.random.key(0), (2, 5, 7))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_their_formulas(name):
  xs = np.linspace(-5, 5, 41)
  np.testing.assert_allclose(ACTIVATIONS[name](jnp.array(xs)), [FORMULAS[name](x) for x in xs], rtol=1e-4, atol=2e-6)


def test_plain_mlp_is_its_formula():
  mlp = MLP(11, "relu")
  p = filled(mlp, X)
  h = jnp.maximum(X @ p["up"]["kernel"] + p["up"]["bias"][None, None], 0)
  want = h @ p["down"]["kernel"] + p["down"]["bias"][None, None]
  np.testing.assert_allclose(mlp.apply({"params": p}, X), want, rtol=1e-5, atol=1e-5)


def test_gated_mlp_is_its_formula_and_has_no_bias():
  mlp = GatedMLP(11)
  p = filled(mlp, X)
  h = jax.nn.silu(X @ p["gate"]["kernel"]) * (X @ p["up"]["kernel"])
  np.testing.assert_allclose(mlp.apply({"params": p}, X), h @ p["down"]["kernel"], rtol=1e-5, atol=1e-5)
  assert {name: set(part) for name, part in p.items()} == {name: {"kernel"} for name in ("gate", "up", "down")}


@pytest.mark.parametrize("kind", [MLP, GatedMLP])
def test_hidden_dropout_acts_in_training_only(kind):
  mlp = kind(11, dropout=0.5)
  p = {"params": filled(mlp, X)}
  np.testing.assert_array_equal(mlp.apply(p, X), kind(11).apply(p, X, train=True))
  assert abs(mlp.apply(p, X, train=True, rngs={"dropout": jax.random.key(1)}) - mlp.apply(p, X)).max() > 0.01


def test_an_activation_may_be_a_function():
  p = {"params": filled(MLP(11), X)}
  np.testing.assert_array_equal(MLP(11, jax.nn.relu).apply(p, X), MLP(11, "relu").apply(p, X))


def test_an_unknown_activation_is_refused():
  with pytest.raises(ValueError, match="activation is 'glu'. It may be a function or: relu, gelu"):
    MLP(11, "glu").init(jax.random.key(0), X)


def test_a_gate_in_bfloat16_is_rounded_once_and_keeps_what_it_multiplies_alone():
  rng = np.random.default_rng(0)
  gate, up = (jnp.asarray(rng.normal(size=(3, 5)), jnp.bfloat16) for _ in range(2))
  exact, pull_exact = jax.vjp(lambda *x: jax.nn.silu(x[0]) * x[1], gate.astype(jnp.float32), up.astype(jnp.float32))
  y, pull = jax.vjp(lambda *x: gated(jax.nn.silu, *x), gate, up)
  np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))
  for ours, theirs in zip(pull(jnp.ones_like(y)), pull_exact(jnp.ones_like(exact)), strict=True):
    np.testing.assert_array_equal(ours, theirs.astype(jnp.bfloat16))
  assert {x.dtype for x in jax.tree.leaves(pull)} == {jnp.dtype("bfloat16")} and len(jax.tree.leaves(pull)) == 2
