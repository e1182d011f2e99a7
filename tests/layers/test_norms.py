import jax
import jax.numpy as jnp
import numpy as np

from zoo.layers import norms

# Far from zero: the difference of E[x^2] and E[x]^2 would have no correct digit here.
X = np.asarray(jax.random.normal(jax.random.key(0), (2, 5, 7)), np.float64) + 3000


def test_layer_norm_is_its_formula():
  norm = norms.layer_norm(1e-3)
  params = {"scale": jnp.arange(7.0), "bias": jnp.arange(7.0) - 3}
  want = (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + 1e-3) * np.arange(7) + np.arange(7) - 3
  np.testing.assert_allclose(norm.apply({"params": params}, jnp.array(X, jnp.float32)), want, atol=0.01)


def test_rms_norm_is_its_formula():
  norm = norms.rms_norm(1e-3)
  want = X / np.sqrt((X**2).mean(-1, keepdims=True) + 1e-3) * np.arange(7)
  np.testing.assert_allclose(
    norm.apply({"params": {"scale": jnp.arange(7.0)}}, jnp.array(X, jnp.float32)), want, rtol=1e-5
  )


def test_norms_measure_in_float32_and_answer_in_their_dtype():
  x = jnp.array(X - 3000, jnp.bfloat16)
  for norm in (norms.layer_norm(1e-5, jnp.bfloat16), norms.rms_norm(1e-5, jnp.bfloat16)):
    params = norm.init(jax.random.key(0), x)
    exact = norm.copy(dtype=None).apply(params, x.astype(jnp.float32))
    out = norm.apply(params, x)
    assert out.dtype == jnp.bfloat16 and jax.tree.leaves(params)[0].dtype == jnp.float32
    np.testing.assert_array_equal(out, exact.astype(jnp.bfloat16))


def test_layer_scale_multiplies_and_starts_where_it_is_told_to():
  x = jnp.array(X, jnp.bfloat16)
  params = norms.LayerScale(0.25).init(jax.random.key(0), x)
  np.testing.assert_array_equal(params["params"]["scale"], np.full(7, 0.25, np.float32))
  scale = {"params": {"scale": jnp.arange(7.0)}}
  np.testing.assert_array_equal(
    norms.LayerScale(0.25).apply(scale, jnp.array(X)), jnp.array(X) * jnp.arange(7.0)[None, None]
  )
  assert norms.LayerScale(0.25, jnp.bfloat16).apply(scale, x).dtype == jnp.bfloat16
