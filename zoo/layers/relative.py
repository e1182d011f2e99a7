"""Attention with relative positions and a memory of the previous segment: Transformer-XL.

The logit of a query for a key is (q + u) k + (q + v) W r(distance), with learned u and v, and r the sinusoids of the
distance back to the key. https://arxiv.org/abs/1901.02860, section 3.3
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
  """Causal self-attention with relative positions, which also attends to the previous segment.

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
    """Number of previous tokens that a token attends to in generation; None: all."""
    back = lookback(self.mask)
    return back if back is not None or not self.memory_length else self.memory_length

  @nn.compact
  def __call__(self, x, context=None, *, info=SequenceInfo(), context_info=SequenceInfo(), bias=None, train=False):
    """[batch, length, dim] -> [batch, length, dim]; arguments as of `Attention`, but for `context` and `bias`: None."""
    assert context is None and bias is None, "RelativeAttention reads itself alone, and has its own bias."
    caching = self.is_mutable_collection("cache") and not self.is_initializing()
    memory = None if caching else remembered(self, self.memory_length, x, info)
    source = x if memory is None else jnp.concatenate([memory[0].astype(x.dtype), x], axis=1)
    query, key, value = (
      self._project(name, self.num_heads)(y) for name, y in (("query", x), ("key", source), ("value", source))
    )
    if caching:
      key, value, mask = self._cached(key, value, info)
    else:
      mask = self._mask(x.shape[:2], info, memory)
    content, place = (self.param(name, initial.zeros, query.shape[2:]) for name in ("content_bias", "position_bias"))
    scale = query.shape[-1] ** -0.5 if self.scale is None else self.scale
    products = self._by_distance(add(query, place), x.shape[2], key.shape[1], train)
    in_order = not caching and (info.positions is None or info.segment_ids is not None)
    bias = scale * (shifted(products[..., ::-1]) if in_order else at_distances(products, mask))
    on_weights = self._on_weights(train)
    y = self.kernel(add(query, content), key, value, mask=mask, bias=bias, scale=scale, on_weights=on_weights)
    return self._output(x.shape[2])(y)

  def _cached(self, key, value, info):
    """Keys and values of the cache with the new ones appended, and the mask."""
    if info.segment_ids is not None:
      raise ValueError("Packed sequences cannot be cached. Give each segment its own row, no segment_ids.")
    positions = self._positions(info, key.shape[1], True)
    key, value, key_positions, valid = self._append_to_cache(key, value, positions, info.valid)
    rule = self.mask if self.lookback is None else both(self.mask, masks.window(self.lookback))
    return key, value, AttentionMask(rule, positions, key_positions, valid)

  def _mask(self, shape, info, memory):
    """The mask over memory, if there is one, followed by the tokens of this call."""
    if memory is None:
      positions, segments = info.token_positions(shape[1]), info.segment_ids
      if info.positions is not None and segments is None:
        segments = segments_of(positions, info.valid)
      elif segments is not None:  # By index in the row, not by positions within each segment.
        positions = jnp.arange(shape[1], dtype=jnp.int32)[None]
      in_order = info.positions is None or info.segment_ids is not None
      return AttentionMask(self.mask, positions, positions, info.valid, segments, segments, in_order)
    positions = info.token_positions(shape[1])
    before = positions[:, :1] - jnp.arange(self.memory_length, 0, -1, dtype=jnp.int32)[None]
    real = jnp.ones(shape, bool) if info.valid is None else info.valid
    key_positions, valid = jnp.concatenate([before, positions], axis=1), jnp.concatenate([memory[1], real], axis=1)
    return AttentionMask(self.mask, positions, key_positions, valid)

  def _by_distance(self, query, dim, distances, train):
    """Products of queries with W r of each distance from 0.

    Args:
      query: [batch, queries, heads, head_dim]
      dim: of the sinusoids.
      distances: number of distances.

    Returns:
      float32 [batch, heads, queries, distances]
    """
    waves = Sinusoidal(dim, interleaved=False)
    steps = jnp.arange(distances)
    table = waves(distances, (steps if self.clamp is None else jnp.minimum(steps, self.clamp))[None])[0]
    table = nn.Dropout(self.position_dropout)(table, deterministic=not train).astype(query.dtype)
    project = self._project("distance", self.num_heads)
    few = isinstance(query.shape[1], int) and query.shape[1] < self.head_dim  # An exported program's may be a symbol.
    if few and self.has_variable("params", "distance"):
      # For few queries, W is applied to queries instead of all distances: the same product.
      kernel = self.get_variable("params", "distance")["kernel"].astype(query.dtype)
      turned = jnp.einsum("bqnd,end->bqne", query, kernel)
      return jnp.einsum("bqne,ke->bnqk", turned, table, preferred_element_type=jnp.float32)
    return jnp.einsum("bqnd,knd->bnqk", query, project(table), preferred_element_type=jnp.float32)


def remembered(module, length, x, info):
  """The inputs of a layer in the call before: [batch, memory, dim], and which are real, bool [batch, memory].

  Leaves this call's in their place, where the collection "memory" is mutable.

  Args:
    module: the layer, of Linen.
    length: of the memory, in tokens.
    x: its inputs in this call, [batch, length, dim].
    info: their `SequenceInfo`.

  Returns:
    that pair; None if the memory has no length, or the call no memory

  Raises:
    ValueError: rows are packed, or the memory has other rows, another length or width.
  """
  if not length or not (module.is_mutable_collection(MEMORY) or module.has_variable(MEMORY, "hidden")):
    return None
  if info.segment_ids is not None:
    raise ValueError("Packed sequences do not continue the segment before. Leave out segment_ids, or the memory.")
  shape = (x.shape[0], length)
  hidden = module.variable(MEMORY, "hidden", jnp.zeros, (*shape, x.shape[2]), x.dtype)
  valid = module.variable(MEMORY, "valid", jnp.zeros, shape, bool)
  if hidden.value.shape[0] != x.shape[0]:
    raise ValueError(
      f"The memory holds {hidden.value.shape[0]} rows, the batch has {x.shape[0]}. Start with an empty memory."
    )
  if hidden.value.shape != (*shape, x.shape[2]):
    raise ValueError(
      f"The memory holds {hidden.value.shape[1]} tokens of width {hidden.value.shape[2]}, the layer remembers {length} "
      f"of width {x.shape[2]}. Start with an empty memory."
    )
  before = hidden.value, valid.value
  if module.is_mutable_collection(MEMORY) and not module.is_initializing():
    real = jnp.ones(x.shape[:2], bool) if info.valid is None else info.valid.astype(bool)
    newest = lambda old, new: jnp.concatenate([old, new], axis=1)[:, -length:]
    hidden.value = jax.lax.stop_gradient(newest(before[0], x.astype(before[0].dtype)))
    valid.value = newest(before[1], real)
  return before


def at_distances(products, mask):
  """Of products with each distance those with the distances of the keys of an `AttentionMask`, wherever they lie.

  Args:
    products: [batch, heads, queries, distances]
    mask: positions of the queries and of as many keys as there are distances.

  Returns:
    [batch, heads, queries, keys]; of keys behind a query, which a causal mask hides, those with distance 0
  """
  distances = mask.query_positions[:, :, None] - mask.key_positions[:, None, :]
  distances = jnp.clip(distances, 0, products.shape[-1] - 1)[:, None]
  return jnp.take_along_axis(products, jnp.broadcast_to(distances, products.shape), axis=-1)


def shifted(x):
  """Aligns columns by distance with keys: [..., queries, keys] -> the same shape.

  Column c of x is of distance keys - 1 - c; column k of the result is of the distance from query q back to key k, which
  is keys - queries + q - k. Columns of keys after the query are undefined. https://arxiv.org/abs/1901.02860,
  appendix B

  >>> x = jnp.arange(3)[None] + jnp.array([[0], [10]])  # Two queries after one token of memory: distances 2, 1, 0.
  >>> shifted(x)
  Array([[ 1,  2,  0],
         [10, 11, 12]], dtype=int32)
  """
  *rows, queries, keys = x.shape
  x = jnp.pad(x, [(0, 0)] * len(rows) + [(0, 0), (1, 0)])
  return x.reshape(*rows, keys + 1, queries)[..., 1:, :].reshape(*rows, queries, keys)
