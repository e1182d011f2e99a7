"""Attention by relative positions over a memory of the segment before: Transformer-XL.

The logit of a query for a key is (q + u) k + (q + v) W r(distance), with learned u and v, and r the sinusoids of how
far back the key stands. https://arxiv.org/abs/1901.02860, section 3.3
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.layers import initial, masks
from zoo.layers.attention import Attention
from zoo.layers.masks import AttentionMask, both, lookback
from zoo.layers.mixed_precision import add
from zoo.layers.positions import Sinusoidal
from zoo.layers.sequence import SequenceInfo, segments_of

MEMORY = "memory"


class RelativeAttention(Attention):
  """Causal self-attention with relative positions, which also reads the segment before.

  Arguments as of `Attention`, without rotary positions, norms and grouped heads. Its collections:

  - "memory": the inputs of the last `memory_length` tokens, as they were: no gradient goes there. A call without the
    collection has no memory; with it mutable, the call leaves its own tokens there for the next.
  - "cache", as of `Attention`: keys and values of the last tokens, for generation. A token attends to as many of them
    as memory would hold.

  Args:
    memory_length: tokens of the memory; 0: there is none.
    clamp: distances above it count as it; None: none is too large.
    position_dropout: rate at which entries of the sinusoids are dropped.
  """

  memory_length: int = 0
  clamp: int | None = None
  position_dropout: float = 0.0

  @property
  def lookback(self):
    """How many tokens back a token attends in generation; None: to all."""
    back = lookback(self.mask)
    return back if back is not None or not self.memory_length else self.memory_length

  @nn.compact
  def __call__(self, x, context=None, *, info=SequenceInfo(), context_info=SequenceInfo(), bias=None, train=False):
    """[batch, length, dim] -> [batch, length, dim]; arguments as of `Attention`, but for `context` and `bias`: None."""
    assert context is None and bias is None, "RelativeAttention reads itself alone, and has its own bias."
    batch, length, dim = x.shape
    caching = self.is_mutable_collection("cache") and not self.is_initializing()
    before, before_valid = (None, None) if caching else self._memory(x, info)
    source = x if before is None else jnp.concatenate([before.astype(x.dtype), x], axis=1)
    query = self._project("query", self.num_heads)(x)
    key, value = self._project("key", self.num_heads)(source), self._project("value", self.num_heads)(source)
    kept = source.shape[1] - length
    valid, rule = info.valid, self.mask
    if before is not None:
      real = jnp.ones((batch, length), bool) if valid is None else valid
      valid = jnp.concatenate([before_valid, real], axis=1)
    segments = (info.segment_ids, info.segment_ids)
    in_order = not caching and (info.positions is None or info.segment_ids is not None)
    if in_order:
      key_positions = jnp.arange(kept + length, dtype=jnp.int32)[None]
      positions = key_positions[:, kept:]
    else:
      positions = self._positions(info, length, caching)
      if caching:
        if info.segment_ids is not None:
          raise ValueError("Packed sequences cannot be cached. Give each segment its own row, no segment_ids.")
        key, value, key_positions, valid = self._append_to_cache(key, value, positions, valid)
        rule = rule if self.lookback is None else both(rule, masks.window(self.lookback))
      else:
        # Where the rows' positions are given, the memory stands right before the first of them.
        first = positions[:, :1] - jnp.arange(kept, 0, -1, dtype=jnp.int32)[None]
        key_positions = jnp.concatenate([first, positions], axis=1)
        segments = (segments_of(positions, info.valid),) * 2 if before is None else (None, None)
    content, place = (self.param(name, initial.zeros, query.shape[2:]) for name in ("content_bias", "position_bias"))
    scale = query.shape[-1] ** -0.5 if self.scale is None else self.scale
    by_distance = self._by_distance(add(query, place), dim, key.shape[1], train)
    if in_order:
      relative = shifted(by_distance[..., ::-1])
    else:
      distance = jnp.clip(positions[:, :, None] - key_positions[:, None, :], 0, key.shape[1] - 1)[:, None]
      shape = (batch, self.num_heads, *distance.shape[2:])
      relative = jnp.take_along_axis(by_distance, jnp.broadcast_to(distance, shape), axis=-1)
    y = self.kernel(
      add(query, content),
      key,
      value,
      mask=AttentionMask(rule, positions, key_positions, valid, *segments, in_order and not kept),
      bias=relative * scale,
      scale=scale,
      on_weights=self._on_weights(train),
    )
    return self._output(dim)(y)

  def _memory(self, x, info):
    """The tokens before, [batch, memory_length, dim] and bool [batch, memory_length], or None, None.

    Leaves this call's in their place, where the collection is mutable.
    """
    if not self.memory_length or not (self.is_mutable_collection(MEMORY) or self.has_variable(MEMORY, "hidden")):
      return None, None
    if info.segment_ids is not None:
      raise ValueError("A row of packed sequences has no segment before it. Leave out segment_ids, or the memory.")
    shape = (x.shape[0], self.memory_length)
    hidden = self.variable(MEMORY, "hidden", jnp.zeros, (*shape, x.shape[2]), x.dtype)
    valid = self.variable(MEMORY, "valid", jnp.zeros, shape, bool)
    if hidden.value.shape[0] != x.shape[0]:
      raise ValueError(
        f"The memory holds {hidden.value.shape[0]} rows, the batch has {x.shape[0]}. Begin with an empty memory."
      )
    before = hidden.value, valid.value
    if self.is_mutable_collection(MEMORY) and not self.is_initializing():
      real = jnp.ones(x.shape[:2], bool) if info.valid is None else info.valid.astype(bool)
      newest = lambda old, new: jnp.concatenate([old, new], axis=1)[:, -self.memory_length :]
      hidden.value = jax.lax.stop_gradient(newest(before[0], x.astype(before[0].dtype)))
      valid.value = newest(before[1], real)
    return before

  def _by_distance(self, query, dim, distances, train):
    """Products of queries with W r of each distance from 0.

    Args:
      query: [batch, queries, heads, head_dim]
      dim: of the sinusoids.
      distances: how many.

    Returns:
      float32 [batch, heads, queries, distances]
    """
    waves = Sinusoidal(dim, interleaved=False)
    steps = jnp.arange(distances)
    table = waves(distances, (steps if self.clamp is None else jnp.minimum(steps, self.clamp))[None])[0]
    table = nn.Dropout(self.position_dropout)(table, deterministic=not train).astype(query.dtype)
    project = self._project("distance", self.num_heads)
    if query.shape[1] < self.head_dim and self.has_variable("params", "distance"):
      # A few queries are projected instead of all distances: the same product the other way round.
      kernel = self.get_variable("params", "distance")["kernel"].astype(query.dtype)
      turned = jnp.einsum("bqnd,end->bqne", query, kernel)
      return jnp.einsum("bqne,ke->bnqk", turned, table, preferred_element_type=jnp.float32)
    return jnp.einsum("bqnd,knd->bnqk", query, project(table), preferred_element_type=jnp.float32)


def shifted(x):
  """Aligns columns by distance with keys: [..., queries, keys] -> the same shape.

  Column c of x is of distance keys - 1 - c; column k of the result is of the distance from query q back to key k, which
  is keys - queries + q - k. Columns of keys after the query hold what is left over. https://arxiv.org/abs/1901.02860,
  appendix B

  >>> x = jnp.arange(3)[None] + jnp.array([[0], [10]])  # Two queries behind one token of memory: distances 2, 1, 0.
  >>> shifted(x)
  Array([[ 1,  2,  0],
         [10, 11, 12]], dtype=int32)
  """
  *rows, queries, keys = x.shape
  x = jnp.pad(x, [(0, 0)] * len(rows) + [(0, 0), (1, 0)])
  return x.reshape(*rows, keys + 1, queries)[..., 1:, :].reshape(*rows, queries, keys)
