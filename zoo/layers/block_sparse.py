"""Block-sparse attention of BigBird: a window, the first and the last block, random blocks; linear in the length.

https://arxiv.org/abs/2007.14062, section 2. Code: https://github.com/google-research/bigbird.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zoo.layers import initial
from zoo.layers.attention import on_weights_of
from zoo.layers.dense import DenseGeneral
from zoo.layers.dense_attention import dense_attention
from zoo.layers.masks import AttentionMask
from zoo.layers.mixed_precision import pick
from zoo.layers.sequence import SequenceInfo

PAPER_LENGTHS = (1024, 3072, 4096)  # The released code draws these lengths' blocks in another way.
PAPER_REACH = 1024  # Tokens from which it draws them.


def block_attention(query, key, value, *, size, valid=None, random=None, repeats=0):
  """softmax(query @ key / sqrt(head_dim)) @ value over the keys that a block sees.

  Block i sees blocks 0, i - 1, i, i + 1 and the last one, each once, and its random ones, once for every time that they
  are named: a key that is named twice counts twice in the softmax. The first and the last block see all.

  Args:
    query, key, value: [batch, length, heads, head_dim]; length is a multiple of size, of at least 3 blocks.
    size: tokens of a block.
    valid: bool [batch, length], True = a real key, or None: all are.
    random: int [heads, blocks - 2, count], the random blocks of all but the first and the last one, or None.
    repeats: how often the first block is named besides, as it is in evaluation for every random block.

  Returns:
    [batch, length, heads, head_dim]
  """
  batch, length, heads, dim = query.shape
  count = length // size
  arrays = tuple(x.swapaxes(1, 2).reshape(batch, heads, count, size, dim) for x in (query, key, value))
  # Arguments, not closed over: the backward pass may be traced elsewhere, in a scan over layers for example.
  facts = None if valid is None else valid.astype(bool).reshape(batch, count, size)
  attend = functools.partial(_attend, repeats=repeats)

  @jax.custom_vjp
  def run(arrays, facts):
    return _by_head(lambda arrays, random: attend(*arrays, facts, random), arrays, random)

  def gradients(saved, d_y):
    """From logits that are computed once more: of all heads they would take most of the memory."""
    arrays, facts = saved
    back = lambda given, random: jax.vjp(lambda *arrays: attend(*arrays, facts, random), *given[:-1])[1](given[-1])
    return _by_head(back, (*arrays, d_y), random), None

  run.defvjp(lambda arrays, facts: (run(arrays, facts), (arrays, facts)), gradients)
  return run(arrays, facts).reshape(batch, heads, length, dim).swapaxes(1, 2)


def _by_head(run, arrays, random):
  """run(arrays, random) of arrays [batch, heads, ...], head by head on CPUs, whose caches hold the logits of one."""

  def one(head):
    arrays, random = head
    found = run(tuple(x[:, None] for x in arrays), None if random is None else random[None])
    return jax.tree.map(lambda x: x[:, 0], found)

  def each(arrays):
    heads = tuple(x.swapaxes(0, 1) for x in arrays), None if random is None else jnp.asarray(random)
    return jax.tree.map(lambda x: x.swapaxes(0, 1), jax.lax.map(one, heads))

  return jax.lax.platform_dependent(arrays, cpu=each, default=lambda arrays: run(arrays, random))


def _attend(query, key, value, real, random, *, repeats):
  """`block_attention` of arrays [batch, heads, blocks, size, head_dim]; real: bool [batch, blocks, size] or None."""
  batch, heads, count, size, dim = query.shape
  scale = dim**-0.5
  flat = lambda x: x.reshape(batch, heads, -1, dim)
  attend = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)

  ends = _ends(query)
  logits = scale * attend("bhnqd,bhkd->bhnqk", ends, flat(key))
  ends = _weighted(_softmax(logits, None if real is None else real.reshape(batch, 1, 1, 1, -1)), flat(value))

  middle = query[:, :, 1:-1]
  near_keys, near_values = (_near(x, random) for x in (key, value))
  far_keys, far_values = (flat(_ends(x)) for x in (key, value))
  near = scale * attend("bhmqd,bhmkd->bhmqk", middle, near_keys)
  far = scale * attend("bhmqd,bhkd->bhmqk", middle, far_keys)
  if repeats:
    far += jnp.repeat(jnp.array([math.log(1 + repeats), 0.0], jnp.float32), size)[None, None, None, None]
  visible = _visible(real, random, count, size)
  weights = _softmax(jnp.concatenate([far, near], axis=-1), visible).astype(value.dtype)
  y = jnp.einsum("bhmqk,bhkd->bhmqd", weights[..., : 2 * size], far_values)
  y += jnp.einsum("bhmqk,bhmkd->bhmqd", weights[..., 2 * size :], near_values)
  return jnp.concatenate([ends[:, :, :1], y, ends[:, :, 1:]], axis=2)


def _ends(x):
  """The first and the last block: [batch, heads, blocks, size, head_dim] -> [batch, heads, 2, size, head_dim]"""
  return jnp.stack([x[:, :, 0], x[:, :, -1]], axis=2)


def _near(x, random):
  """The blocks that stand near each inner one, and its random ones: -> [batch, heads, blocks - 2, keys, head_dim]"""
  blocks = [x[:, :, :-2], x[:, :, 1:-1], x[:, :, 2:]]
  if random is not None:
    heads, dim = x.shape[1], x.shape[-1]
    table = jnp.asarray(random).reshape(heads, -1)
    drawn = jax.vmap(lambda x: pick(x.reshape(*x.shape[:2], -1), table))(x)
    blocks.append(drawn.reshape(len(x), heads, x.shape[2] - 2, -1, dim))
  return jnp.concatenate(blocks, axis=3)


def _visible(real, random, count, size):
  """bool [batch or 1, heads or 1, blocks - 2, 1, keys]: first and last block, those near, and random ones."""
  once = np.ones((count - 2, 3), bool)  # The first and the last block are counted as such.
  once[0, 0] = once[-1, 2] = False
  once = once.repeat(size, axis=1)[None]
  inner = (slice(None, -2), slice(1, -1), slice(2, None))
  real = jnp.ones((1, count, size), bool) if real is None else real
  near = jnp.concatenate([real[:, part] for part in inner], axis=-1) & once
  far = jnp.broadcast_to(jnp.concatenate([real[:, 0], real[:, -1]], axis=-1)[:, None], (len(near), count - 2, 2 * size))
  visible = jnp.concatenate([far, near], axis=-1)[:, None]
  if random is not None:
    drawn = real[:, random].reshape(len(real), *random.shape[:2], -1)
    visible = jnp.concatenate([jnp.broadcast_to(visible, (*drawn.shape[:3], visible.shape[-1])), drawn], axis=-1)
  return visible[:, :, :, None]


def _softmax(logits, visible):
  return jax.nn.softmax(logits if visible is None else jnp.where(visible, logits, jnp.finfo(jnp.float32).min))


def _weighted(weights, values):
  return jnp.einsum("bhnqk,bhkd->bhnqd", weights.astype(values.dtype), values)


@functools.lru_cache(maxsize=128)
def random_blocks(seed, heads, length, size, count, max_length):
  """The random blocks of the released code: int32 [heads, blocks - 2, count], the same for the same arguments.

  Args:
    seed: of NumPy's legacy generator; the number of the layer.
    length: tokens, a multiple of `size`, of more than 5 + 2 * count blocks.
    size, count: tokens of a block, random blocks of each.
    max_length: of the model.
  """
  draw, blocks = np.random.RandomState(seed), length // size
  if length in PAPER_LENGTHS:
    return np.stack([_drawn_within(draw, max_length // size, size, count)[: blocks - 2] for _ in range(heads)])
  end = 2 * count + 5
  tables = np.zeros((heads, blocks - 2, count), np.int32)
  for block in range(1, blocks - 1):
    taken = {0, end - 1, block - 1, block, block + 1}
    taken |= {end - 2} if block == 1 else {1} if block == end - 2 else set()
    for head in range(heads):
      tables[head, block - 1] = [other for other in draw.permutation(end) if other not in taken][:count]
  return tables


def _drawn_within(draw, blocks, size, count):
  """int32 [blocks - 2, count] of the lengths of the paper: from the first 1,024 tokens, without those near a block."""
  middle = np.arange(1, blocks - 1)
  last = PAPER_REACH // size - 1 if PAPER_REACH > 2 * size else blocks - 1
  rows = []
  for block in range(1, blocks - 1):
    before, after = middle[: block - 2], middle[block + 1 : last]
    if block <= 2:
      pool = middle[block + 1 : last]
    elif block >= blocks - 3 or block - 2 > last:
      pool = middle[:last]
    else:
      pool = before if block + 1 == last else np.concatenate([before, after])
    if len(pool) < count:
      raise ValueError(f"{count} random blocks of {size} tokens do not fit {blocks} blocks. Lower num_random or size.")
    rows.append(draw.permutation(pool)[:count])
  return np.array(rows, np.int32)


class BlockSparseAttention(nn.Module):
  """Self-attention of BigBird: by blocks in long sequences, full in those of 5 + 2 * num_random blocks or fewer.

  In training the random blocks are those of the layer's seed. In evaluation the released code points all of them to the
  first block, whose keys count 1 + num_random times there; so does this. Weights are dropped in full attention alone.

  Args:
    num_heads, head_dim: of query, key and value.
    block_size: tokens of a block; None: attention is always full.
    num_random: random blocks that a block sees.
    seed: of the random blocks.
    max_length: of the model, which the random blocks of some lengths depend on.
    dropout: rate at which attention weights are dropped.
  """

  num_heads: int
  head_dim: int
  block_size: int | None
  num_random: int
  seed: int
  max_length: int
  dropout: float = 0.0
  dtype: Any = None
  kernel_init: Callable = initial.lecun_normal()

  @nn.compact
  def __call__(self, x, context=None, *, info=SequenceInfo(), context_info=SequenceInfo(), bias=None, train=False):
    """[batch, length, dim] -> [batch, length, dim]; context and bias are None."""
    if info.segment_ids is not None:
      raise ValueError(
        "Attention by blocks sees all texts of a packed row. Give each text its own row, no segment_ids."
      )
    dense = functools.partial(DenseGeneral, dtype=self.dtype, kernel_init=self.kernel_init)
    query, key, value = (dense((self.num_heads, self.head_dim), name=name)(x) for name in ("query", "key", "value"))
    length, size = x.shape[1], self.block_size
    if size is None or length <= (5 + 2 * self.num_random) * size:
      places = jnp.arange(length, dtype=jnp.int32)[None]
      mask = AttentionMask(None, places, places, info.valid)
      y = dense_attention(query, key, value, mask=mask, on_weights=on_weights_of(self, train))
    else:
      y = self.by_blocks(query, key, value, info.valid, train)
    return dense(x.shape[-1], axis=(-2, -1), name="out")(y)

  def by_blocks(self, query, key, value, valid, train):
    """Block attention with padding to whole blocks: [batch, length, heads, head_dim] -> the same"""
    length, size = query.shape[1], self.block_size
    missing = -length % size
    if missing:
      valid = jnp.ones((1, length), bool) if valid is None else valid
      valid = jnp.broadcast_to(jnp.pad(valid, ((0, 0), (0, missing))), (query.shape[0], length + missing))
      query, key, value = (jnp.pad(array, ((0, 0), (0, missing), (0, 0), (0, 0))) for array in (query, key, value))
    drawn = {}
    if self.num_random and train:
      sizes = length + missing, size, self.num_random, self.max_length
      drawn = {"random": random_blocks(self.seed, self.num_heads, *sizes)}
    elif self.num_random:
      drawn = {"repeats": self.num_random}
    y = block_attention(query, key, value, size=size, valid=valid, **drawn)
    # Padding attends to nothing, as in the released code.
    y = y if valid is None else jnp.where(valid[:, :, None, None], y, 0)
    return y[:, :length]
