"""Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks (Reimers and Gurevych, 2019).

https://arxiv.org/abs/1908.10084. Code: https://github.com/UKPLab/sentence-transformers. Parameters are named as those
of `bert`, so that training starts from any BERT: `--config.init=FOLDER`.
"""

import functools
from typing import Unpack

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, norms, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PostNormBlock
from zoo.layers.compute import Compute, computing
from zoo.layers.dense import Dense
from zoo.layers.embeddings import Embed
from zoo.layers.mixed_precision import add
from zoo.layers.mlp import MLP
from zoo.layers.positions import Learned, add_positions
from zoo.layers.sequence import SequenceInfo
from zoo.layers.stack import stack
from zoo.models.model import Model

PAPER = {
  "title": "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
  "authors": "Reimers and Gurevych",
  "year": 2019,
  "url": "https://arxiv.org/abs/1908.10084",
}


class SentenceBERT(Model):
  """BERT with mean pooling over real tokens, and optionally a classifier on the mean."""

  embed: nn.Module
  segments: nn.Module
  positions: nn.Module
  norm: nn.Module
  stack: nn.Module
  classify: nn.Module | None = None
  dropout: float = 0.0

  @nn.compact
  def __call__(self, tokens, *, segments=None, valid=None, train=False):
    """Hidden states and their mean.

    Args:
      tokens: int32 [batch, length]
      segments: int32 [batch, length], 0 = first sentence, 1 = second; all 0 if None.
      valid: bool [batch, length], True = a real token; others are masked, and left out of the mean.

    Returns:
      dict of "hidden" [batch, length, dim], "pooled" [batch, dim] and, where the model has classes, "logits" float32
      [batch, num_classes]
    """

    def drop(y):
      return nn.Dropout(self.dropout)(y, deterministic=not train)

    sizes.tokens_fit(tokens)
    info = SequenceInfo(valid)
    x = add_positions(self.embed(tokens), self.positions, info)
    x = add(x, self.segments.embedding[:1]) if segments is None else x + self.segments(segments)
    x = self.stack(drop(self.norm(x)), info=info, train=train)
    weight = jnp.ones(tokens.shape, x.dtype) if valid is None else valid.astype(x.dtype)
    pooled = jnp.einsum("bld,bl->bd", x, weight) / jnp.maximum(weight.sum(axis=1), 1)[:, None]
    out = {"hidden": x, "pooled": pooled}
    return out if self.classify is None else {**out, "logits": self.classify(drop(pooled)).astype(jnp.float32)}

  @property
  def max_length(self):
    return self.positions.max_length

  @nn.nowrap
  def example(self, batch_size=1):
    return (jnp.zeros((batch_size, min(self.max_length, 8)), jnp.int32),)


def sentence_bert(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int | None = None,
  num_classes: int | None = None,
  num_segments: int = 2,
  activation: str = "gelu",
  epsilon: float = 1e-12,
  **options: Unpack[Compute],
) -> SentenceBERT:
  """A sentence encoder of these sizes; mlp_dim defaults to 4 * dim; no classes if num_classes is None.

  epsilon: of the norms.
  """
  dropout, dtype, stacking = computing(options)
  head_dim = sizes.head_dim(dim, num_heads)
  sizes.positive(vocab_size=vocab_size, max_length=max_length, depth=depth, mlp_dim=mlp_dim, num_segments=num_segments)
  sizes.positive(num_classes=num_classes)
  init = initial.truncated_normal(0.02)
  norm = norms.layer_norm(epsilon, dtype)
  attention = Attention(num_heads, head_dim, dropout=dropout, dtype=dtype, kernel_init=init, out_init=init)
  mlp = MLP(mlp_dim or 4 * dim, activation, dtype=dtype, kernel_init=init, down_init=init)
  embed = functools.partial(Embed, features=dim, dtype=dtype, embedding_init=init)
  block = PostNormBlock(attention, mlp, norm, dropout=dropout)
  return SentenceBERT(
    embed=embed(vocab_size),
    segments=embed(num_segments),
    positions=Learned(max_length, dim, embedding_init=init),
    norm=norm.copy(),
    stack=stack(block, depth, **stacking),
    classify=None if num_classes is None else Dense(num_classes, dtype=dtype, kernel_init=init),
    dropout=dropout,
  )


# https://huggingface.co/sentence-transformers, without the pooler, which is unused.
_MINILM = dict(vocab_size=30522, max_length=512, dim=384, num_heads=12, mlp_dim=1536)
VARIANTS = {
  "all-MiniLM-L6-v2": dict(depth=6, **_MINILM),
  "all-MiniLM-L12-v2": dict(depth=12, **_MINILM),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "all-MiniLM-L6-v2": 22_565_376,
  "all-MiniLM-L12-v2": 33_212_160,
}
