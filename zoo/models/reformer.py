"""Reformer: The Efficient Transformer (Kitaev et al., 2020).

Code: https://github.com/google/trax, trax/models/reformer.
"""

import functools
import math
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict, Unpack

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, masks, norms, sizes
from zoo.layers.axial import Axial
from zoo.layers.chunk_attention import LocalAttention
from zoo.layers.chunked import Chunked
from zoo.layers.compute import Compute, resolve
from zoo.layers.dense import Dense
from zoo.layers.embeddings import Embed
from zoo.layers.heads import OwnLogits, TanhHead, token_heads
from zoo.layers.lsh import LSHAttention
from zoo.layers.mixed_precision import add
from zoo.layers.mlp import MLP, activation
from zoo.layers.positions import Learned
from zoo.layers.reversible import ReversibleBlock, reversible_stack
from zoo.models.reversible_models import Reformer, ReformerLM, ReversibleModel

PAPER = {
  "title": "Reformer: The Efficient Transformer",
  "authors": "Kitaev et al.",
  "year": 2020,
  "url": "https://arxiv.org/abs/2001.04451",
}
HEADS = ("lm", "mlm", "classify", "question_answering", None)


class Chunks(TypedDict, total=False):
  """Options of chunks and of hashing.

  local_chunk, lsh_chunk: tokens in a chunk of layers of that kind; *_before, *_after: neighbouring chunks that a chunk
    attends to; *_dropout: rate at which attention weights are dropped.
  rounds: of hashing. buckets: how many, even, or two factors; None: about two for each chunk.
  hash_seed: of the rotations, at every call; None: drawn anew in training, 0 elsewhere.
  """

  local_chunk: Annotated[int, 64]
  local_before: Annotated[int, 1]
  local_after: Annotated[int, 0]
  local_dropout: Annotated[float, 0.0]
  lsh_chunk: Annotated[int, 64]
  lsh_before: Annotated[int, 1]
  lsh_after: Annotated[int, 0]
  lsh_dropout: Annotated[float, 0.0]
  rounds: Annotated[int, 1]
  buckets: Annotated[int | list | None, None]
  hash_seed: Annotated[int | None, None]


class ReformerOptions(Chunks, Compute):
  """Options of chunks, of hashing and of computing."""


class Positions(Learned):
  """Learned positions, with dropout."""

  dropout: float = 0.0

  @nn.compact
  def __call__(self, length, positions=None, *, batch=1, train=False):
    """As `Axial`."""
    x = super().__call__(length, positions)
    drop = nn.Dropout(self.dropout, deterministic=not train)
    return drop(jnp.broadcast_to(x, (batch, *x.shape[1:])) if train else x)


class FeedForward(MLP):
  """down(activation(dropout(up(x)))), [..., dim] -> [..., dim]"""

  @nn.compact
  def __call__(self, x, *, train=False):
    dense = functools.partial(Dense, dtype=self.dtype, dot_general=self.dot_general)
    h = dense(self.mlp_dim, kernel_init=self.kernel_init, name="up")(x)
    h = activation(self.activation)(nn.Dropout(self.dropout)(h, deterministic=not train))
    return dense(x.shape[-1], kernel_init=self.down_init, name="down")(h)


class BiasedLogits(OwnLogits):
  """x @ kernel + bias; `biased`: whether the bias is added, or only held for files."""

  biased: bool = True

  @nn.compact
  def __call__(self, x, embed):
    """[..., dim] -> float32 [..., vocab_size]; `embed` is not used."""
    logits, bias = super().__call__(x, embed), self.param("bias", initial.zeros, (self.vocab_size,))
    return add(logits, bias) if self.biased else logits


def reformer(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  head_dim: int | None = None,
  mlp_dim: int | None = None,
  mlp_chunk: int | None = None,
  pattern: Sequence[str] = ("local", "lsh"),
  axial_shape: Sequence[int] | None = None,
  axial_dims: Sequence[int] | None = None,
  head: str | None = "lm",
  num_classes: int | None = None,
  causal: bool | None = None,
  activation: str = "relu",
  epsilon: float = 1e-12,
  output_bias: bool = True,
  **options: Unpack[ReformerOptions],
) -> ReversibleModel:
  """A Reformer of these sizes; mlp_dim is 4 * dim if None. Its language models are not causal to the bit, see there.

  mlp_chunk: positions that pass the MLP at a time, `zoo.layers.chunked`; None: all.
  pattern: kinds of attention, "local" and "lsh", repeated over the layers.
  axial_shape: height and width of the grid of positions, axial_dims: of its two embeddings; None: learned positions.
  head: "lm" (the next token), "mlm" (masked tokens), "classify" (num_classes, read at the first token),
    "question_answering" (start and end of an answer), None (hidden states).
  causal: whether tokens attend to earlier ones only; None: with the head "lm".
  output_bias: whether the bias of predicted tokens is added: transformers 5.0 to 5.23 have it and do not add it.
  """
  chosen = resolve(ReformerOptions, options)
  dropout, dtype = chosen.dropout, chosen.dtype
  head_dim = sizes.head_dim(dim, num_heads) if head_dim is None else head_dim
  causal = head == "lm" if causal is None else causal
  sizes.positive(vocab_size=vocab_size, max_length=max_length, dim=dim, depth=depth, num_heads=num_heads)
  sizes.positive(head_dim=head_dim, mlp_dim=mlp_dim, mlp_chunk=mlp_chunk)
  sizes.head_fits(head, HEADS, num_classes)
  check(chosen, pattern, causal, head)
  check_axial(axial_shape, axial_dims, max_length, dim)
  init = initial.normal(0.02)
  shared = dict(mask=masks.causal if causal else None, use_bias=False, dtype=dtype, kernel_init=init, out_init=init)
  chunks = lambda kind: {
    name: getattr(chosen, f"{kind}_{name}") for name in ("chunk", "before", "after", "dropout")
  }  # fmt: skip
  attentions = {
    "local": LocalAttention(num_heads, head_dim, **chunks("local"), **shared),
    "lsh": LSHAttention(
      num_heads, head_dim, **chunks("lsh"), rounds=chosen.rounds, buckets=factors(chosen.buckets),
      max_length=max_length, seed=chosen.hash_seed, **shared,
    ),
  }  # fmt: skip
  mlp = FeedForward(mlp_dim or 4 * dim, activation, dropout=dropout, dtype=dtype, kernel_init=init, down_init=init)
  mlp = mlp if mlp_chunk is None else Chunked(mlp, mlp_chunk)
  norm, layers = norms.layer_norm(epsilon, dtype), kinds(pattern, depth)
  blocks = [ReversibleBlock(attentions[kind], mlp, norm, dropout) for kind in layers]
  lengths = [attentions[kind].chunk for kind in set(layers)]
  positions = (
    Positions(max_length, dim, embedding_init=init, dropout=dropout) if axial_shape is None
    else Axial(tuple(axial_shape), tuple(axial_dims or ()), dropout)
  )  # fmt: skip
  parts: dict[str, Any] = dict(
    embed=Embed(vocab_size, dim, dtype=dtype, embedding_init=init),
    positions=positions,
    stack=reversible_stack(tuple(blocks) if len(blocks) > 1 else blocks[0], depth, scan=chosen.scan),
    norm=norm.copy(),
    max_length=max_length,
    multiple=math.lcm(*lengths),
    shortest=min(lengths),
    causal=causal,
    dropout=dropout,
  )
  logits = BiasedLogits(vocab_size, dtype=dtype, kernel_init=init, biased=output_bias)
  if head == "lm":
    return ReformerLM(logits=logits, **parts)
  dense = functools.partial(Dense, dtype=dtype, kernel_init=init)
  heads = token_heads(head, num_classes, dense, classify=lambda count: TanhHead(dense(dim), dense(count), dropout))
  return Reformer(mlm=logits if head == "mlm" else None, **heads, **parts)


def kinds(pattern, depth):
  """The shortest cycle of layers that repeats to the same `depth` layers as `pattern` does."""
  layers = [pattern[i % len(pattern)] for i in range(depth)]
  for count in range(1, depth + 1):
    if all(layers[i] == layers[i % count] for i in range(depth)):
      return layers[:count]
  return layers


def factors(buckets):
  """The number of buckets as a tuple of its factors."""
  return None if buckets is None else (buckets,) if isinstance(buckets, int) else tuple(buckets)


def check(chosen, pattern, causal, head):
  """ValueError for what reversible, hashed or causal layers cannot have."""
  if chosen.drop_path:
    raise ValueError(f"drop_path is {chosen.drop_path}, and a reformer's layers cannot be dropped. Use dropout.")
  if chosen.remat is not None:
    sizes.remat_policy(chosen.remat)
    raise ValueError(f"remat is {chosen.remat!r}, and reversible layers save nothing that it could. Leave it out.")
  if not pattern or set(pattern) - {"local", "lsh"}:
    raise ValueError(f"pattern is {list(pattern)}. It may hold 'local' and 'lsh', at least one of them.")
  if head == "lm" and not causal:
    raise ValueError("head is 'lm' and causal False: the next token would be read. Leave causal out.")
  if head == "mlm" and causal:
    raise ValueError("head is 'mlm' and causal True: masked tokens are read from both sides. Leave causal out.")
  sizes.positive(local_chunk=chosen.local_chunk, lsh_chunk=chosen.lsh_chunk, rounds=chosen.rounds)
  sizes.rate(local_dropout=chosen.local_dropout, lsh_dropout=chosen.lsh_dropout)
  for name in ("local_before", "local_after", "lsh_before", "lsh_after"):
    if getattr(chosen, name) < 0:
      raise ValueError(f"{name} is {getattr(chosen, name)}. It must be at least 0.")
  if head == "lm" and (chosen.local_after or chosen.lsh_after):
    raise ValueError("head is 'lm', and local_after or lsh_after not 0: what comes after is not read. Set them to 0.")
  buckets = factors(chosen.buckets)
  if buckets is not None and (len(buckets) not in (1, 2) or any(each < 2 or each % 2 for each in buckets)):
    raise ValueError(f"buckets are {list(buckets)}. There must be one or two factors, even numbers from 2 on.")


def check_axial(shape, dims, max_length, dim):
  """ValueError for a grid of positions that does not hold the longest row, or embeddings of another width."""
  if shape is None and dims is None:
    return
  if shape is None or dims is None or len(shape) != 2 or len(dims) != 2 or min(*shape, *dims) < 1:
    raise ValueError(f"axial_shape is {shape} and axial_dims {dims}. Give two positive sizes for each, or neither.")
  if math.prod(shape) < max_length:
    raise ValueError(
      f"axial_shape {list(shape)} holds {math.prod(shape)} positions, and max_length is {max_length}. Enlarge the "
      "grid, or lower max_length."
    )
  if sum(dims) != dim:
    raise ValueError(f"axial_dims {list(dims)} have {sum(dims)} entries together, dim is {dim}. They must be equal.")


# https://huggingface.co/google/reformer-crime-and-punishment and reformer-enwik8
VARIANTS = {
  "crime-and-punishment": dict(
    vocab_size=320, max_length=524288, dim=256, depth=6, num_heads=2, head_dim=64, mlp_dim=512, buckets=[64, 128],
    axial_shape=[512, 1024], axial_dims=[64, 192],
  ),
  "enwik8": dict(
    vocab_size=258, max_length=65536, dim=1024, depth=12, num_heads=8, head_dim=128, mlp_dim=4096,
    pattern=["local", "local", "lsh", "local"], local_chunk=128, lsh_chunk=256, rounds=4, buckets=512,
    axial_shape=[128, 512], axial_dims=[256, 768],
  ),
}  # fmt: skip
# Parameter counts, printed by `list_models`.
PARAMETERS = {"crime-and-punishment": 2_748_224, "enwik8": 149_182_722}
