"""Big Bird: Transformers for Longer Sequences (Zaheer et al., 2020).

https://arxiv.org/abs/2007.14062. Code: https://github.com/google-research/bigbird.
"""

import functools
from typing import Unpack

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, norms, sizes
from zoo.layers.block_sparse import BlockSparseAttention
from zoo.layers.blocks import PostNormBlock
from zoo.layers.compute import Compute, computing
from zoo.layers.dense import Dense
from zoo.layers.embeddings import Embed
from zoo.layers.heads import token_heads
from zoo.layers.mlp import MLP
from zoo.layers.mlp import activation as activation_named
from zoo.layers.positions import Learned
from zoo.layers.stack import stack
from zoo.models.bert import BERT, MaskedTokenHead

PAPER = {
  "title": "Big Bird: Transformers for Longer Sequences",
  "authors": "Zaheer et al.",
  "year": 2020,
  "url": "https://arxiv.org/abs/2007.14062",
}
HEADS = ("pretraining", "mlm", "classify", "multiple_choice", "classify_tokens", "question_answering", None)
NO_ANSWER = -1e6  # Added to the scores of a question's tokens.


class BigBird(BERT):
  """BERT with attention by blocks, a classification layer of its own in place of the pooler, and one for answers.

  A token of the question but the first one starts and ends no answer. The question ends with the first token
  `separator`; None: it is the first segment.
  """

  summary: nn.Module | None = None
  activation: str = "gelu_tanh"
  separator: int | None = None

  def __call__(self, tokens, *, segments=None, valid=None, positions=None, segment_ids=None, predict=None, train=False):
    """As of BERT, without packed rows. Padding counts: the last block, which all tokens see, may be one of padding.

    With the head "question_answering" and a `separator`, segments default to 0 for the question, 1 behind it.
    """
    question = None
    if self.answer is not None and self.separator is not None and tokens.ndim == 2:
      ends = jnp.argmax(tokens == self.separator, axis=1)
      question = jnp.arange(tokens.shape[1])[None] <= ends[:, None]
      segments = (~question).astype(jnp.int32) if segments is None else segments
    elif self.answer is not None and segments is not None:
      question = segments == 0
    inputs = {"segments": segments, "valid": valid, "positions": positions, "segment_ids": segment_ids}
    out = super().__call__(tokens, **inputs, predict=predict, train=train)
    if question is None:
      return out
    asked = question & (jnp.arange(tokens.shape[1]) > 0)[None]
    return out | {name: out[name] + NO_ANSWER * asked for name in ("start", "end")}

  def pooled(self, x, drop):
    """The first token's state [batch, dim] -> [batch, dim], or None."""
    if self.summary is None:
      return super().pooled(x, drop)
    return activation_named(self.activation)(self.summary(drop(x)))


class AnswerHead(nn.Module):
  """An MLP with a residual connection and a norm, and the scores of start and end."""

  mlp: nn.Module
  norm: nn.Module
  out: nn.Module

  @nn.compact
  def __call__(self, x):
    """[batch, length, dim] -> [batch, length, 2]"""
    return self.out(self.norm(x + self.mlp(x)))


def bigbird(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int | None = None,
  block_size: int | None = 64,
  num_random: int = 3,
  head: str | None = "pretraining",
  num_classes: int | None = None,
  num_segments: int = 2,
  pad: int | None = None,
  separator: int | None = None,
  activation: str = "gelu_tanh",
  epsilon: float = 1e-12,
  **options: Unpack[Compute],
) -> BigBird:
  """A BigBird of these sizes; mlp_dim defaults to 4 * dim.

  block_size: tokens of a block; None: attention is full. It is full, too, in sequences of up to 5 + 2 * num_random
    blocks.
  num_random: random blocks that a block sees, beside its neighbours, the first and the last one; see
    `zoo.layers.block_sparse` for which they are.
  head: "pretraining" (masked tokens, next sentence), "mlm" (masked tokens), "classify" (num_classes), "classify_tokens"
    (num_classes each), "question_answering" (start and end of an answer), "multiple_choice", None.
  pad: the padding token; its embedding is not trained.
  separator: the token that ends a question; None: it is the first segment.
  epsilon: of the norms.
  """
  dropout, dtype, stacking = computing(options)
  head_dim = sizes.head_dim(dim, num_heads)
  sizes.positive(vocab_size=vocab_size, max_length=max_length, depth=depth, mlp_dim=mlp_dim, num_segments=num_segments)
  sizes.positive(block_size=block_size)
  sizes.head_fits(head, HEADS, num_classes)
  if num_random < 0:
    raise ValueError(f"num_random is {num_random}. It must be at least 0.")
  if head == "question_answering" and separator is not None and num_segments < 2:
    raise ValueError("separator tells two segments apart, and num_segments is 1. Make it 2, or separator None.")
  init = initial.truncated_normal(0.02)
  norm = norms.layer_norm(epsilon, dtype)
  dense = functools.partial(Dense, dtype=dtype, kernel_init=init)
  mlp = MLP(mlp_dim or 4 * dim, activation, dtype=dtype, kernel_init=init, down_init=init)
  attention = functools.partial(
    BlockSparseAttention, num_heads, head_dim, block_size, num_random, max_length=max_length, dropout=dropout
  )
  # Each layer has random blocks of its own, so each is of its own kind.
  attentions = [attention(seed=layer, dtype=dtype, kernel_init=init) for layer in range(depth)]
  blocks = tuple(PostNormBlock(each, mlp, norm, dropout=dropout) for each in attentions)
  heads = token_heads(head, num_classes, dense)
  return BigBird(
    embed=Embed(vocab_size, dim, dtype=dtype, embedding_init=init),
    segments=Embed(num_segments, dim, dtype=dtype, embedding_init=init),
    positions=Learned(max_length, dim, embedding_init=init),
    norm=norm.copy(),
    stack=stack(blocks, depth, **stacking),
    pooler=dense(dim) if head in ("pretraining", "multiple_choice", None) else None,
    summary=dense(dim) if head == "classify" else None,
    mlm=MaskedTokenHead(dense(dim), norm.copy(), activation) if head in ("pretraining", "mlm") else None,
    nsp=dense(2) if head == "pretraining" else None,
    **heads | ({"answer": AnswerHead(mlp.copy(), norm.copy(), dense(2))} if head == "question_answering" else {}),
    pad=pad,
    separator=separator,
    activation=activation,
    dropout=dropout,
  )


VARIANTS = {
  "base": dict(vocab_size=50358, max_length=4096, dim=768, depth=12, num_heads=12, pad=0, separator=66),
  "large": dict(vocab_size=50358, max_length=4096, dim=1024, depth=24, num_heads=16, pad=0, separator=66),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {"base": 128_112_824, "large": 360_228_024}
