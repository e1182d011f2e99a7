import math

import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers import positions, rope_scaling

THETA, HALF = 700.0, 5
PLACES = jnp.arange(7)[None]
PLAIN = [THETA ** (-i / HALF) for i in range(HALF)]


def scaled(name, places=PLACES, **options):
  frequency, amplitude = rope_scaling.scaling({"name": name, **options})(THETA, HALF, places)
  return np.asarray(frequency)[:, 0], amplitude


def test_linear_divides():
  frequency, amplitude = scaled("linear", factor=3.0)
  np.testing.assert_allclose(frequency[0], np.array(PLAIN) / 3, rtol=1e-6)
  assert amplitude == 1


def test_dynamic_changes_only_texts_that_are_longer_than_the_trained():
  np.testing.assert_allclose(scaled("dynamic", factor=3.0, trained_length=7)[0][0], PLAIN, rtol=1e-6)
  places = jnp.stack([PLACES[0], PLACES[0] + 9])  # 16 long, the second
  frequency, _ = scaled("dynamic", places, factor=3.0, trained_length=8)
  theta = THETA * (3 * 16 / 8 - 2) ** (2 * HALF / (2 * HALF - 2))
  np.testing.assert_allclose(frequency[0], PLAIN, rtol=1e-6)
  np.testing.assert_allclose(frequency[1], [theta ** (-i / HALF) for i in range(HALF)], rtol=1e-5)


def test_llama3_slows_what_hardly_turned():
  frequency, _ = scaled("llama3", factor=8.0, trained_length=100, low=1.0, high=4.0)
  for one, plain in zip(frequency[0], PLAIN):
    turns = 100 * plain / (2 * math.pi)
    stays = 1 if turns > 4 else 0 if turns < 1 else (turns - 1) / 3
    assert one == pytest.approx(stays * plain + (1 - stays) * plain / 8, rel=1e-6)
  assert len({round(float(b / a), 3) for a, b in zip(PLAIN, frequency[0])}) == 3  # Each of the three cases occurs.


@pytest.mark.parametrize("truncate", [True, False])
def test_yarn_slows_by_place(truncate):
  frequency, amplitude = scaled("yarn", factor=4.0, trained_length=50, fast=6.0, slow=0.5, truncate=truncate)
  first, last = (HALF * math.log(50 / (turns * 2 * math.pi)) / math.log(THETA) for turns in (6.0, 0.5))
  if truncate:
    first, last = math.floor(first), math.ceil(last)
  slower = [min(max((i - max(first, 0)) / (last - max(first, 0)), 0), 1) for i in range(HALF)]
  np.testing.assert_allclose(frequency[0], [p * (1 - s) + p / 4 * s for p, s in zip(PLAIN, slower)], rtol=1e-6)
  assert 0 < slower[1] < 1
  assert amplitude == pytest.approx(0.1 * math.log(4) + 1)
  assert scaled("yarn", factor=4.0, trained_length=50, amplitude=1.25)[1] == 1.25


def test_amplitude_multiplies_logits_by_its_square():
  x = jnp.ones((1, 7, 2, 2 * HALF))
  plain, yarn = (
    positions.rotary(THETA, rope_scaling.scaling({"name": "yarn", "factor": 1.0, "trained_length": 9, **more}))(
      x, PLACES
    )
    for more in ({}, {"amplitude": 1.5})
  )
  np.testing.assert_allclose(plain, positions.rotary(THETA)(x, PLACES), rtol=1e-5)
  np.testing.assert_allclose((yarn * yarn).sum(-1), 2.25 * (plain * plain).sum(-1), rtol=1e-5)


def test_the_same_options_are_the_same_function():
  options = {"name": "llama3", "factor": 8.0, "trained_length": 100}
  one, other = (positions.rotary(THETA, rope_scaling.scaling(dict(options))) for _ in range(2))
  assert one is other and rope_scaling.scaling(None) is None


def test_unknown_scalings_and_options_are_refused():
  with pytest.raises(ValueError, match="rope.name is 'longrope'. It must be one of: linear, dynamic, llama3, yarn"):
    rope_scaling.scaling({"name": "longrope"})
  with pytest.raises(ValueError, match="rope linear has factor, low. It takes factor, needs factor."):
    rope_scaling.scaling({"name": "linear", "factor": 2.0, "low": 1.0})
  with pytest.raises(ValueError, match="rope dynamic has factor. It takes factor, trained_length, needs"):
    rope_scaling.scaling({"name": "dynamic", "factor": 2.0})
