"""Attention within chunks and their neighbours: the cost grows with the length, not with its square.

Source: https://arxiv.org/abs/2001.04451, section 2
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.layers.attention import Attention
from zoo.layers.masks import AttentionMask
from zoo.layers.sequence import SequenceInfo

MASKED, ITSELF = -1e9, -1e5  # Logits of a hidden key, and of the query's own where it is the last resort.


def attend_chunks(
  query, key, value, index, valid=None, *, chunk, before=0, after=0, causal=False, itself=True, on_weights=None
):
  """softmax(query @ key) @ value, of each chunk with itself and its neighbours; the first and the last are neighbours.

  Args:
    query, key, value: [batch, heads, length, head_dim]; keys are scaled.
    index: int32 [batch or 1, heads or 1, length], where in its row a token stands.
    valid: bool [batch, heads or 1, length], True = a real token; None: all are.
    chunk: tokens in a chunk; it divides the length.
    before, after: neighbouring chunks that a chunk attends to.
    causal: whether a token attends only to those at its own index and before.
    itself: whether a token attends to itself even where it can attend to others.
    on_weights: function of the weights [batch, heads, chunks, chunk, keys] that returns their replacement.

  Returns:
    [batch, heads, length, head_dim]; and the logsumexp of each query's logits, float32 [batch, heads, length]
  """
  split = lambda x: x.reshape(*x.shape[:2], -1, chunk, *x.shape[3:])
  shifts = range(before, -after - 1, -1)
  near = lambda x: jnp.concatenate([jnp.roll(split(x), i, axis=2) for i in shifts], axis=3)
  logits = jnp.einsum("bhnqd,bhnkd->bhnqk", split(query), near(key), preferred_element_type=jnp.float32)
  at, of = split(index)[..., None], near(index)[..., None, :]
  if causal:
    logits = jnp.where(of <= at, logits, MASKED)
  if valid is not None:
    logits = jnp.where(near(valid)[..., None, :], logits, MASKED)
  if not itself:
    logits = jnp.where(of == at, ITSELF, logits)
  total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
  weights = jnp.exp(logits - total)
  weights = weights if on_weights is None else on_weights(weights)
  y = jnp.einsum("bhnqk,bhnkd->bhnqd", weights.astype(value.dtype), near(value))
  return y.reshape(query.shape), total.reshape(query.shape[:3])


def check_chunks(length, chunk):
  """ValueError for a length that does not divide into chunks."""
  if length > chunk and length % chunk:
    raise ValueError(f"A row of {length} tokens does not divide into chunks of {chunk}. Pad it, and pass valid.")


class ChunkedAttention(Attention):
  """Base of attentions within chunks. Rows of at most one chunk are attended to in full.

  Args beside those of `Attention`:
    chunk: tokens in a chunk.
    before, after: neighbouring chunks that a chunk attends to.
  """

  chunk: int = 64
  before: int = 1
  after: int = 0

  @property
  def caches(self):
    """Whether this call appends to a cache."""
    return self.mask is not None and self.is_mutable_collection("cache") and not self.is_initializing()

  def from_cache(self, query, key, value, rule, info, train):
    """Attends to all cached tokens that a rule of positions allows, those of this call among them.

    Args:
      query, key, value: [batch, length, heads, head_dim]; keys are scaled.
      rule: of `zoo.layers.masks`.
    """
    positions = self._positions(info, key.shape[1], True)
    key, value, key_positions, valid = self._append_to_cache(key, value, positions, info.valid)
    mask = AttentionMask(rule, positions, key_positions, valid)
    return self.kernel(query, key, value, mask=mask, scale=1.0, on_weights=self._on_weights(train))


class LocalAttention(ChunkedAttention):
  """Attention to the own chunk and its neighbours. Arguments as `ChunkedAttention`."""

  @property
  def lookback(self):
    """Number of previous tokens that a token attends to; None: unlimited."""
    return None if self.mask is None else (self.before + 1) * self.chunk - 1

  @nn.compact
  def __call__(
    self, x, context=None, *, info=SequenceInfo(), context_info=SequenceInfo(), bias=None, train=False, rotations=None
  ):
    """[batch, length, dim] -> [batch, length, dim]; as of `Attention`, but for `context` and `bias`: None.

    rotations: not used; hashed layers in between are called alike.
    """
    assert context is None and bias is None, "LocalAttention reads itself alone, without a bias."
    query, key, value = (self._project(name, self.num_heads)(x) for name in ("query", "key", "value"))
    key = key * self.head_dim**-0.5
    if self.caches:
      return self._output(x.shape[2])(self.from_cache(query, key, value, self._near, info, train))
    check_chunks(x.shape[1], self.chunk)
    several = x.shape[1] > self.chunk
    y, _ = attend_chunks(
      *(each.swapaxes(1, 2) for each in (query, key, value)),
      jnp.arange(x.shape[1], dtype=jnp.int32)[None, None],
      None if info.valid is None else info.valid[:, None].astype(bool),
      chunk=min(self.chunk, x.shape[1]),
      before=self.before if several else 0,
      after=self.after if several else 0,
      causal=self.mask is not None,
      on_weights=self._on_weights(train),
    )
    return self._output(x.shape[2])(y.swapaxes(1, 2))

  def _near(self, query_positions, key_positions):
    near = key_positions // self.chunk >= query_positions // self.chunk - self.before
    return near & (key_positions <= query_positions)
