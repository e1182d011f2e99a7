"""Splash attention of Pallas, on TPUs.

https://github.com/jax-ml/jax/tree/main/jax/experimental/pallas/ops/tpu/splash_attention
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from zoo.kernels.per_device import Unsupported, no_bias, on_mesh, pad_to_multiple, rows_of
from zoo.layers.masks import AttentionMask, band
from zoo.layers.patterns import Pattern
from zoo.layers.sparse_attention import sparse_attention, supports

LANES = 128  # Blocks are multiples of this, the width of a TPU's vector registers.
BLOCKS = (512, 384, 256, LANES)  # Sizes of blocks, at most 512, MaxText's choice for every TPU so far.


def splash(query, key, value, mask, bias, scale, mesh, *, interpret=False) -> jax.Array:
  """Splash attention, which skips masked blocks: any pattern, with packed sequences.

  Shapes as of `zoo.kernels.attention.xla`. interpret: run it on CPUs, slowly, for tests.

  Raises:
    Unsupported: the lengths, the mask, the positions or the bias are not such that it takes.
  """
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

  no_bias(bias)
  queries, keys = query.shape[1], key.shape[1]
  if min(queries, keys) < LANES:
    raise Unsupported(f"{queries} queries see {keys} keys, splash attention takes {LANES} or more")
  if mask.global_keys is not None and not supports(query, key, mask):
    raise Unsupported("its global tokens are inputs, and its mask is no pattern of positions 0, 1, 2, ...")
  limits = band(mask.rule)
  if limits is None and not isinstance(mask.rule, Pattern):
    raise Unsupported("its mask is a rule of the model's own")
  if limits != (None, None) and not (mask.in_order and queries == keys):
    raise Unsupported("positions are not 0, 1, 2, ...: they are passed, or come from a cache")
  parts = mesh.shape.get("sequence", 1)
  if parts > 1 and queries % (parts * LANES):
    raise Unsupported(
      f"{queries} queries do not divide into {parts} shards of mesh axis 'sequence' that are multiples of {LANES}"
    )
  shape = tuple(size + -size % LANES for size in (queries, keys))
  if mask.global_keys is not None:
    return _with_global_keys(query, key, value, mask, scale, mesh, shape, interpret)
  shard_shape = (shape[0] // parts, shape[1])
  # The blocks that a device reads depend on the position of its shard of the queries, unless it reads all.
  shards = 1 if limits == (None, None) else parts
  heads_here = query.shape[2] // mesh.shape.get("model", 1)
  if limits is None:
    heads = _pattern_masks(mask.rule.at(keys), shape, heads_here, query.shape[2])
  elif limits == (None, None):
    heads = [masks.FullMask(shard_shape)] * heads_here
  else:
    block_mask = masks.CausalMask(shape) if limits == (None, 0) else masks.LocalMask(shape, limits, offset=0)
    heads = [block_mask] * heads_here
  ids = _ids(mask, query.shape[0], queries, keys)
  key, value = (pad_to_multiple(x, LANES, 1) for x in (key, value))
  return _attend(query * scale, key, value, heads, ids, mesh, shard_shape, shards, interpret)


def _attend(query, key, value, heads, ids, mesh, sizes, shards, interpret):
  """Runs the kernel on every device of a mesh.

  Args:
    query: scaled. key, value: padded to whole blocks.
    heads: a mask of the library for each head of a device.
    ids: segment ids as of `_ids`.
    sizes: queries and keys of a device. shards: of the queries.
  """
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

  blocks, queries = _blocks(kernels, *sizes, query.shape[-1]), query.shape[1]
  attend = kernels.make_splash_mha(
    masks.MultiHeadMask(heads), block_sizes=blocks, head_shards=1, q_seq_shards=shards, interpret=interpret
  )

  def run(query, key, value, attend, *ids):
    query, key, value = (x.swapaxes(1, 2) for x in (pad_to_multiple(query, LANES, 1), key, value))
    segments = kernels.SegmentIds(*ids) if ids else None
    y = jax.vmap(attend, in_axes=(0, 0, 0, 0 if ids else None))(query, key, value, segments).swapaxes(1, 2)
    return y[:, : queries // parts]

  parts = mesh.shape.get("sequence", 1)
  length = "sequence" if parts > 1 else None
  specs = attend.manual_sharding_spec(NamedSharding(mesh, P(None, length if shards > 1 else None)))
  rows = rows_of(mesh)
  of_ids = (P(rows, length), P(rows, None)) if ids else ()
  return on_mesh(run, mesh, query, key, value, (attend, specs), *zip(ids, of_ids), length=length)


def _with_global_keys(query, key, value, mask, scale, mesh, shape, interpret):
  """Attention by a pattern and to the global keys of each row, of which copies stand behind the others.

  They take a block of keys. If a row has more, `sparse_attention` runs.
  """
  slots, batch, length = _block(shape[1]), query.shape[0], key.shape[1]
  of_query, of_key = _ids(mask, batch, length, length, always=True)
  is_global = jnp.pad(jnp.broadcast_to(mask.global_keys.astype(bool), (batch, length)), ((0, 0), (0, -length % LANES)))
  is_global &= of_key >= 0
  count = is_global.sum(1)

  def copied():
    at = jnp.argsort(~is_global, axis=1, stable=True)[:, :slots].astype(jnp.int32)
    of_slots = jnp.take_along_axis(of_key, at, axis=1)
    of_slots = jnp.where(jnp.arange(slots)[None] < count[:, None], of_slots, -1)
    ids = of_query, jnp.concatenate([jnp.where(is_global, -1, of_key), of_slots], axis=1)
    padded = [pad_to_multiple(x, LANES, 1) for x in (key, value)]
    longer = [jnp.concatenate([x, jnp.take_along_axis(x, at[:, :, None, None], axis=1)], axis=1) for x in padded]
    heads_here = query.shape[2] // mesh.shape.get("model", 1)
    heads = _pattern_masks(mask.rule.at(length), shape, heads_here, query.shape[2], slots)
    parts = mesh.shape.get("sequence", 1)
    sizes = shape[0] // parts, shape[1] + slots
    return _attend(query * scale, *longer, heads, ids, mesh, sizes, parts, interpret)

  rest = lambda: sparse_attention(query, key, value, mask=mask, scale=scale)
  return jax.lax.cond(count.max() <= slots, copied, rest)


def _pattern_masks(pattern: Pattern, shape: tuple[int, int], heads_here: int, heads: int, slots: int = 0) -> list:
  """A mask for each head on a device; `slots`: further keys, which all queries see."""
  from zoo.kernels.pattern_mask import PatternMask

  if pattern.heads is not None and heads_here != heads:
    raise Unsupported("its heads have patterns of their own, and mesh axis 'model' shards them")
  return [PatternMask(pattern, shape, 0 if pattern.heads is None else head, slots) for head in range(heads_here)]


def _ids(mask: AttentionMask, batch: int, queries: int, keys: int, always: bool = False) -> tuple:
  """Segment ids int32 [batch, queries] and [batch, keys], both with padding: a query attends to keys of its id.

  None if all ids are equal and no padding is visible to a query, unless `always`.
  """
  of_query, of_key, valid = mask.query_segments, mask.key_segments, mask.valid
  hidden = keys % LANES == 0 or (band(mask.rule) or (None, None))[1] == 0
  if of_query is None and valid is None and hidden and not always:
    return ()
  filled_ids = lambda ids, size: (
    jnp.ones((batch, size), jnp.int32) if ids is None else jnp.broadcast_to(ids, (batch, size))
  )
  of_query, of_key = filled_ids(of_query, queries), filled_ids(of_key, keys)
  of_key = of_key if valid is None else jnp.where(valid, of_key, -1)  # Segment ids are never negative.
  of_key = jnp.pad(of_key, ((0, 0), (0, -keys % LANES)), constant_values=-1)
  return pad_to_multiple(of_query, LANES, 1), of_key


def _blocks(kernels: Any, queries: int, keys: int, head_dim: int) -> Any:
  """The largest block sizes that divide the lengths."""
  q, kv = _block(queries), _block(keys)
  block_sizes = {f"block_q{part}": q for part in ("", "_dkv", "_dq")} | {
    f"block_kv{part}": kv for part in ("", "_dkv", "_dq")
  }
  # The last dimension is padded to full registers: heads of 64, saved for the backward pass, would take twice as much.
  layout = kernels.QKVLayout.SEQ_MINOR if head_dim % LANES else kernels.QKVLayout.HEAD_DIM_MINOR
  layouts = {f"{part}_layout": layout for part in "qkv"}
  return kernels.BlockSizes(**block_sizes, **layouts, block_kv_compute=kv, block_kv_dkv_compute=kv)


def _block(length: int) -> int:
  return next(size for size in BLOCKS if length % size == 0)
