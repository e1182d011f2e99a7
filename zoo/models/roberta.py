"""RoBERTa: A Robustly Optimized BERT Pretraining Approach (Liu et al., 2019).

https://arxiv.org/abs/1907.11692. Code: https://github.com/facebookresearch/fairseq, examples/roberta.
"""

import functools
from typing import Unpack

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.layers import initial, norms, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PostNormBlock
from zoo.layers.compute import Compute, computing
from zoo.layers.dense import Dense
from zoo.layers.embeddings import Embed
from zoo.layers.heads import token_heads
from zoo.layers.mixed_precision import add
from zoo.layers.mlp import MLP
from zoo.layers.positions import Learned
from zoo.layers.sequence import segment_positions
from zoo.layers.stack import stack
from zoo.models.bert import BERT, MaskedTokenHead

PAPER = {
  "title": "RoBERTa: A Robustly Optimized BERT Pretraining Approach",
  "authors": "Liu et al.",
  "year": 2019,
  "url": "https://arxiv.org/abs/1907.11692",
}
HEADS = ("mlm", "classify", "multiple_choice", "classify_tokens", "question_answering", None)


class RoBERTa(BERT):
  """BERT that counts positions over real tokens only, and has its own classification layer in place of the pooler.

  Arguments as BERT; `summary` is that layer. The token `pad` has the same position everywhere, and that is not
  trained either.
  """

  summary: nn.Module | None = None

  def embedded(self, tokens, segments, info):
    """The sum of token, position and segment embeddings: int32 [batch, length] -> [batch, length, dim]"""
    real = tokens != self.pad
    positions = real_positions(real, info.segment_ids) if info.positions is None else info.positions
    x = add(self.embed(tokens), self.positions(tokens.shape[1], positions))
    x = jnp.where(real[:, :, None], x, jax.lax.stop_gradient(x))
    return self.with_segments(x, segments)

  def pooled(self, x, drop):
    """The first token's state [batch, dim] -> [batch, dim], or None."""
    if self.summary is None:
      return super().pooled(x, drop)
    return nn.tanh(self.summary(drop(x)))


def real_positions(real, segment_ids=None):
  """Positions counted over real tokens, -1 for the others: bool [batch, length] -> int32 [batch, length]"""
  positions = jnp.cumsum(real, axis=1) - 1 if segment_ids is None else segment_positions(segment_ids, real)
  return jnp.where(real, positions, -1)


def roberta(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int | None = None,
  head: str | None = "mlm",
  num_classes: int | None = None,
  num_segments: int = 1,
  pad: int = 1,
  pooler: bool = True,
  activation: str = "gelu",
  epsilon: float = 1e-5,
  **options: Unpack[Compute],
) -> RoBERTa:
  """A RoBERTa of these sizes; mlp_dim defaults to 4 * dim.

  max_length: maximum sequence length; the table of positions has pad + 1 rows more.
  head: "mlm" (masked tokens), "classify" (num_classes), "classify_tokens" (num_classes each), "question_answering"
    (start and end of an answer), "multiple_choice", None.
  pad: the padding token.
  pooler: whether the model without a head has one.
  epsilon: of the norms.
  """
  dropout, dtype, stacking = computing(options)
  head_dim = sizes.head_dim(dim, num_heads)
  sizes.positive(vocab_size=vocab_size, max_length=max_length, depth=depth, mlp_dim=mlp_dim, num_segments=num_segments)
  sizes.head_fits(head, HEADS, num_classes)
  if not 0 <= pad < vocab_size:
    raise ValueError(f"pad is {pad}. It must be a token id: at least 0, below vocab_size {vocab_size}.")
  init = initial.truncated_normal(0.02)
  norm = norms.layer_norm(epsilon, dtype)
  dense = functools.partial(Dense, dtype=dtype, kernel_init=init)
  attention = Attention(num_heads, head_dim, dropout=dropout, dtype=dtype, kernel_init=init, out_init=init)
  mlp = MLP(mlp_dim or 4 * dim, activation, dtype=dtype, kernel_init=init, down_init=init)
  block = PostNormBlock(attention, mlp, norm, dropout=dropout)
  return RoBERTa(
    embed=Embed(vocab_size, dim, dtype=dtype, embedding_init=init),
    segments=Embed(num_segments, dim, dtype=dtype, embedding_init=init),
    positions=Learned(max_length, dim, embedding_init=init, offset=pad + 1),
    norm=norm.copy(),
    stack=stack(block, depth, **stacking),
    pooler=dense(dim) if head == "multiple_choice" or head is None and pooler else None,
    summary=dense(dim) if head == "classify" else None,
    # The head's code has a gelu for every activation of the layers.
    mlm=MaskedTokenHead(dense(dim), norm.copy(), "gelu") if head == "mlm" else None,
    **token_heads(head, num_classes, dense),
    dropout=dropout,
    pad=pad,
  )


# Table 9 of the paper.
VARIANTS = {
  "base": dict(vocab_size=50265, max_length=512, dim=768, depth=12, num_heads=12),
  "large": dict(vocab_size=50265, max_length=512, dim=1024, depth=24, num_heads=16),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "base": 124_697_433,
  "large": 355_412_057,
}
