"""Locality-sensitive hashing attention: a token attends to those whose queries point in similar directions.

Queries are keys. Each round hashes them by random rotations, sorts the row by bucket and cuts it into chunks, which
attend to themselves and their neighbours. https://arxiv.org/abs/2001.04451, section 2

Sorting uses all tokens of a row. So a causal layer reads nothing of what comes later, but which of the earlier tokens
it reads can depend on that: a token's output may change with the future. With a cache, in generation, tokens attend to
all before them, which many rounds approximate.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.layers.chunk_attention import ChunkedAttention, attend_chunks, check_chunks
from zoo.layers.sequence import SequenceInfo


def default_buckets(length, chunk, max_length):
  """Number of buckets for a length, as a tuple of one or two factors, powers of two: about two for each chunk.

  >>> default_buckets(4096, 64, 4096), default_buckets(65536, 64, 65536)
  ((128,), (32, 64))
  """
  power = (2 * (length // chunk)).bit_length() - 1
  limit = 2 * max(math.isqrt(max_length // chunk), chunk)
  return (2**power,) if 2**power <= limit else (2 ** (power // 2), 2 ** (power - power // 2))


def hash_vectors(x, rotations, buckets):
  """The bucket of each vector in each round: that of the nearest of the rotated axes, or of their opposites.

  Args:
    x: [batch, heads, length, head_dim]
    rotations: [heads, head_dim, rounds, sum(buckets) / 2]
    buckets: number of buckets, as a tuple of factors: of two, each has rotations of its own.

  Returns:
    int32 [batch, heads, rounds, length]
  """
  rotated = jnp.einsum("bhnd,hdrk->bhrnk", x, rotations.astype(x.dtype), preferred_element_type=jnp.float32)
  bucket, size = jnp.zeros(rotated.shape[:-1], jnp.int32), 1
  for part, factor in zip(jnp.split(rotated, [sum(buckets[:i]) // 2 for i in range(1, len(buckets))], -1), buckets):
    # The first maximum of [part, -part], by reductions that vectorize as an argmax does not.
    axes, longest = jnp.arange(factor // 2, dtype=jnp.int32), abs(part).max(-1, keepdims=True)
    nearest = jnp.where(part == longest, axes, jnp.where(part == -longest, axes + factor // 2, factor - 1))
    bucket, size = bucket + size * nearest.min(-1), size * factor
  return bucket


@jax.custom_vjp
def permute(x, order, inverse):
  """x[order] along the second last axis; `inverse`, the inverse permutation, makes its gradient a gather too.

  x: [..., length, dim]; order, inverse: int32 [..., length]
  """
  return jnp.take_along_axis(x, order[..., None], axis=-2, mode="promise_in_bounds")


permute.defvjp(
  lambda x, order, inverse: (permute(x, order, inverse), (order, inverse)),
  lambda saved, grad: (permute(grad, saved[1], saved[0]), None, None),
)


def unit_keys(queries, head_dim):
  """Keys from shared queries: of root mean square 1 / sqrt(head_dim). [..., head_dim] -> [..., head_dim]"""
  wide = queries.astype(jnp.float32)
  scale = jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + 1e-6) * head_dim**-0.5
  return (wide * scale).astype(queries.dtype)


def lsh_attention(query, value, buckets, *, chunk, before=1, after=0, valid=None, causal=False, on_weights=None):
  """Attention of shared queries and keys within sorted chunks of equal hashes, over several rounds.

  Args:
    query, value: [batch, heads, length, head_dim]; keys are `unit_keys` of the queries.
    buckets: int [batch, heads, rounds, length], from `hash_vectors`; padding in one of its own after all others.
    chunk, before, after, causal, on_weights: as of `attend_chunks`.
    valid: bool [batch, heads or 1, length], True = a real token; None: all are.

  Returns:
    [batch, heads, length, head_dim]
  """
  batch, heads, length, head_dim = query.shape
  rounds = buckets.shape[2]
  order = jnp.argsort(buckets, axis=-1, stable=True).astype(jnp.int32)
  inverse = jnp.argsort(order, axis=-1).astype(jnp.int32)
  both = jnp.concatenate([query, value], axis=-1)
  # By way of float32, in which the rounds' gradients are summed.
  wide = jnp.broadcast_to(both.astype(jnp.float32)[:, :, None], (batch, heads, rounds, length, 2 * head_dim))
  both = permute(wide.astype(both.dtype), order, inverse)
  query, value = jnp.split(both.reshape(batch, heads, rounds * length, 2 * head_dim), 2, axis=-1)
  index = order.reshape(batch, heads, -1)
  if valid is not None:
    valid = jnp.take_along_axis(jnp.broadcast_to(valid, (batch, heads, length)), index, axis=-1)
  # Of the rounds' chunks, too, the first and the last are neighbours.
  y, total = attend_chunks(
    query, unit_keys(query, head_dim), value, index, valid,
    chunk=chunk, before=before, after=after, causal=causal, itself=False, on_weights=on_weights,
  )  # fmt: skip
  y = permute(y.reshape(batch, heads, rounds, length, head_dim), inverse, order)
  if rounds == 1:
    return y[:, :, 0]
  total = permute(total.reshape(batch, heads, rounds, length, 1), inverse, order)
  # Not a softmax: the reference rounds what a token that sees only itself, with logits of -1e5, gets from the rounds.
  weights = jnp.exp(total - jax.nn.logsumexp(total, axis=2, keepdims=True))
  return (y.astype(weights.dtype) * weights).sum(axis=2).astype(y.dtype)


class LSHAttention(ChunkedAttention):
  """Attention among tokens with equal hashes.

  Args beside those of `ChunkedAttention`:
    rounds: of hashing; their results are weighted by what each has seen.
    buckets: how many, or a tuple of two factors; even. None: `default_buckets`.
    max_length: for that, the longest row there is.
    seed: of rotations that are not given, at every call; None: from the key "dropout" in training, 0 elsewhere.
  """

  rounds: int = 1
  buckets: tuple[int, ...] | None = None
  max_length: int = 4096
  seed: int | None = None

  def __call__(
    self, x, context=None, *, info=SequenceInfo(), context_info=SequenceInfo(), bias=None, train=False, rotations=None
  ):
    """[batch, length, dim] -> [batch, length, dim]; arguments as of `noted`, and `context` and `bias` None."""
    assert context is None and bias is None, "LSHAttention reads itself alone, without a bias."
    return self.noted(x, info=info, rotations=rotations, train=train)[0]

  @nn.compact
  def noted(self, x, *, info=SequenceInfo(), rotations=None, note=None, train=False):
    """The output, and the buckets, from which a reversible layer repeats it.

    Args:
      x: [batch, length, dim]
      info: `SequenceInfo` of x. Padding is hashed to a bucket of its own.
      rotations: [heads, head_dim, rounds, sum of the factors of buckets / 2]; None: drawn, see `seed`.
      note: buckets from an earlier call; None: tokens are hashed.

    Returns:
      [batch, length, dim]; int [batch, heads, rounds, length], or None for a row of one chunk
    """
    shared, value = (self._project(name, self.num_heads)(x) for name in ("query", "value"))
    if self.caches:
      y = self.from_cache(shared, unit_keys(shared, self.head_dim), value, _earlier, info, train)
      return self._output(x.shape[2])(y), None
    check_chunks(x.shape[1], self.chunk)
    shared, value = shared.swapaxes(1, 2), value.swapaxes(1, 2)
    valid = None if info.valid is None else info.valid[:, None].astype(bool)
    options = dict(causal=self.mask is not None, on_weights=self._on_weights(train))
    length = x.shape[1]
    if length <= self.chunk:
      index, keys = jnp.arange(length, dtype=jnp.int32)[None, None], unit_keys(shared, self.head_dim)
      y, _ = attend_chunks(shared, keys, value, index, valid, chunk=length, itself=False, **options)
    else:
      note = self._hash(shared, valid, rotations, train) if note is None else note
      near = dict(chunk=self.chunk, before=self.before, after=self.after)
      y = lsh_attention(shared, value, note, valid=valid, **near, **options)
    return self._output(x.shape[2])(y.swapaxes(1, 2)), note

  def _hash(self, shared, valid, rotations, train):
    buckets = self.buckets or default_buckets(shared.shape[2], self.chunk, self.max_length)
    shape = (self.num_heads, self.head_dim, self.rounds, sum(buckets) // 2)
    if rotations is None:
      drawn = self.seed is None and train and self.has_rng("dropout")
      key = self.make_rng("dropout") if drawn else jax.random.key(self.seed or 0)
      rotations = jax.random.normal(key, shape)
    if rotations.shape != shape:
      raise ValueError(
        f"rotations have shape {list(rotations.shape)}, {self.rounds} rounds and {'x'.join(map(str, buckets))} buckets "
        f"need {list(shape)}."
      )
    bucket = hash_vectors(*jax.lax.stop_gradient((shared, rotations)), buckets)
    bucket = bucket if valid is None else jnp.where(valid[:, :, None], bucket, math.prod(buckets))
    return bucket.astype(jnp.uint8 if math.prod(buckets) < 256 else jnp.int32)  # Reversible layers keep them.


def _earlier(query_positions, key_positions):
  """A token attends to those before it; the first, which has none, to itself."""
  return (key_positions < query_positions) | ((key_positions == query_positions) & (query_positions == 0))
