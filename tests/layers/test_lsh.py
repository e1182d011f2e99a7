import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers import masks
from zoo.layers.chunk_attention import LocalAttention, attend_chunks
from zoo.layers.lsh import LSHAttention, default_buckets, hash_vectors, lsh_attention, permute, unit_keys
from zoo.layers.sequence import SequenceInfo

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(2, 24, 7)), jnp.float32)


def called(module, **options):
  params = jax.jit(module.init)(jax.random.key(0), X)["params"]
  return params, jax.jit(lambda params: module.apply({"params": params}, X, **options))(params)


@pytest.mark.parametrize("mask, before, after", [(masks.causal, 1, 0), (None, 1, 1), (masks.causal, 2, 0)])
def test_local_attention_is_dense_attention_with_other_chunks_masked(mask, before, after):
  valid = RNG.random((2, 24)) < 0.7
  module = LocalAttention(3, 5, mask=mask, use_bias=False, chunk=4, before=before, after=after)
  params, y = called(module, info=SequenceInfo(jnp.asarray(valid)))
  query, key, value = (np.einsum("bnd,dhe->bhne", X, params[name]["kernel"]) for name in ("query", "key", "value"))
  chunk = np.arange(24) // 4
  apart = chunk[None] - chunk[:, None]  # Of the key from the query, chunk 0 after the last one.
  near = np.isin(apart % 6, np.arange(-before, after + 1) % 6)
  near = near & (np.tri(24, dtype=bool) if mask else True)
  logits = np.einsum("bhqe,bhke->bhqk", query, key) / 5**0.5
  weights = np.asarray(jax.nn.softmax(np.where(near & valid[:, None, None], logits, -1e9)))
  dense = np.einsum("bhqk,bhke,hed->bqd", weights, value, params["out"]["kernel"])
  np.testing.assert_allclose(y[valid], dense[valid], rtol=0, atol=1e-5)


def test_with_one_chunk_for_all_a_token_attends_to_all_others():
  params, y = called(LSHAttention(3, 5, mask=masks.causal, use_bias=False, chunk=24))
  query, value = (np.einsum("bnd,dhe->bhne", X, params[name]["kernel"]) for name in ("query", "value"))
  keys = query / np.sqrt((query**2).mean(-1, keepdims=True) + 1e-6) / 5**0.5
  logits = np.where(np.tri(24, k=-1, dtype=bool), np.einsum("bhqe,bhke->bhqk", query, keys), -1e9)
  logits[:, :, 0, 0] = 0.0  # The first position has no other key.
  dense = np.einsum("bhqk,bhke,hed->bqd", jax.nn.softmax(logits), value, params["out"]["kernel"])
  np.testing.assert_allclose(y, dense, rtol=0, atol=1e-5)


def test_more_rounds_come_closer_to_attention_to_all():
  """Of vectors around few directions, which hashing is for."""
  rng = np.random.default_rng(1)
  centres = rng.normal(size=(16, 8))
  query, value = centres[rng.integers(0, 16, 128)] + 0.1 * rng.normal(size=(128, 8)), rng.normal(size=(128, 8))
  query, value = (jnp.asarray(4 * each[None, None], jnp.float32) for each in (query, value))
  index = jnp.arange(128)[None, None]
  exact, _ = attend_chunks(query, unit_keys(query, 8), value, index, chunk=128, itself=False)

  @jax.jit
  def error(rotations):
    y = lsh_attention(query, value, hash_vectors(query, rotations, (16,)), chunk=16)
    return jnp.linalg.norm(y - exact) / jnp.linalg.norm(exact)

  errors = [np.mean([error(rng.normal(size=(1, 8, rounds, 8))) for _ in range(5)]) for rounds in (1, 8)]
  assert errors[1] < 0.5 * errors[0]


def test_a_bucket_is_the_nearest_of_the_axes_and_their_opposites_and_factors_multiply():
  x, rotations = RNG.normal(size=(2, 3, 7, 5)), RNG.normal(size=(3, 5, 2, 2 + 3))
  rotated = np.einsum("bhnd,hdrk->bhrnk", x, rotations)
  nearest = lambda part: np.concatenate([part, -part], -1).argmax(-1)
  wanted = nearest(rotated[..., :2]) + 4 * nearest(rotated[..., 2:])
  np.testing.assert_array_equal(hash_vectors(jnp.asarray(x), jnp.asarray(rotations), (4, 6)), wanted)


def test_a_permutation_has_the_gradient_of_a_gather():
  order = jnp.asarray(RNG.permuted(np.tile(np.arange(11), (2, 1)), axis=1))
  x, y = RNG.normal(size=(2, 2, 11, 3)).astype(np.float32)
  grad = jax.grad(lambda x: (permute(x, order, jnp.argsort(order, -1)) * y).sum())(x)
  np.testing.assert_allclose(grad, jax.grad(lambda x: (jnp.take_along_axis(x, order[..., None], 1) * y).sum())(x))


def test_buckets_are_two_for_each_chunk_and_many_are_two_factors():
  assert default_buckets(24, 6, 24) == (8,) and default_buckets(64 * 1024, 64, 64 * 1024) == (32, 64)


def test_a_row_that_does_not_divide_is_refused():
  with pytest.raises(ValueError, match="^A row of 24 tokens does not divide into chunks of 5. Pad it, and pass valid."):
    called(LSHAttention(3, 5, chunk=5))
