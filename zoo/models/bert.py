"""BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding (Devlin et al., 2018).

https://arxiv.org/abs/1810.04805. Code: https://github.com/google-research/bert.
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
from zoo.layers.embeddings import Embed, look_up, unembed
from zoo.layers.heads import TokenHeads, refuse_packed, token_heads
from zoo.layers.mixed_precision import add
from zoo.layers.mlp import MLP
from zoo.layers.mlp import activation as activation_named
from zoo.layers.positions import Learned, add_positions
from zoo.layers.sequence import SequenceInfo
from zoo.layers.stack import stack
from zoo.models.model import PredictsMaskedTokens

PAPER = {
  "title": "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
  "authors": "Devlin et al.",
  "year": 2018,
  "url": "https://arxiv.org/abs/1810.04805",
}
# Head -> the outputs it adds to "hidden".
HEADS = {
  "pretraining": ("pooled", "mlm", "nsp"),
  "mlm": ("mlm",),
  "next_sentence": ("pooled", "nsp"),
  "classify": ("pooled", "logits"),
  "multiple_choice": ("pooled", "logits"),
  "classify_tokens": ("logits",),
  "question_answering": ("start", "end"),
  None: ("pooled",),
}


class BERT(TokenHeads, PredictsMaskedTokens):
  """Bidirectional encoder with a pooled first token and the heads that are not None.

  The embedding of the token `pad`, if there is one, is not trained; its position and segment embeddings are.
  """

  embed: nn.Module
  segments: nn.Module | None
  positions: nn.Module
  norm: nn.Module
  stack: nn.Module
  pooler: nn.Module | None = None
  nsp: nn.Module | None = None
  pad: int | None = None
  dropout: float = 0.0

  @nn.compact
  def __call__(self, tokens, *, segments=None, valid=None, positions=None, segment_ids=None, predict=None, train=False):
    """Hidden states and the outputs of the heads.

    Args:
      tokens: int32 [batch, length]; of the head "multiple_choice" [batch, choices, length], and so the rest.
      segments: int32 [batch, length], 0 = first sentence, 1 = second; all 0 if None.
      valid: bool [batch, length], True = a real token; others are masked.
      positions: int32 [batch or 1, length]; counted from 0 in each packed sequence if None.
      segment_ids: int32 [batch, length] of packed sequences; tokens attend within their segment only.
        None: a row is one sequence. Not with heads that read the first token of a row.
      predict: int32 [batch, k], indices into length at which masked-token logits are wanted; everywhere if None.

    Returns:
      dict of "hidden" [batch, length, dim] and, where the model has the head:
        "pooled" [batch, dim], "mlm" [batch, length or k, vocab_size], "nsp" [batch, 2] (class 0 = is next),
        "logits" [batch, num_classes], of tokens [batch, length, num_classes], of choices [batch, choices],
        "start", "end" of an answer [batch, length]. All logits are float32.
    """

    def drop(y):
      return nn.Dropout(self.dropout)(y, deterministic=not train)

    shape = tokens.shape
    tokens, segments, valid, positions = self.rows(tokens, segments, valid, positions)
    sizes.tokens_fit(tokens, segments=segments, valid=valid)
    refuse_packed(segment_ids, self.summarizes or self.pooler is not None)
    info = SequenceInfo(valid, positions, segment_ids)
    x = drop(self.norm(self.embedded(tokens, segments, info)))
    x = self.layers(x, info._replace(positions=None), train=train)  # Only the embedding uses positions.
    out = {"hidden": x, **self.masked_tokens(x, predict), **self.summary_outputs(x[:, 0], drop)}
    # Their code has no dropout before the layer for answers.
    before = {} if self.answer is not None else {"before": drop}
    return {**out, **self.head_outputs(out["pooled"] if self.summarizes else x, shape[:-1], **before)}

  def layers(self, x, info, *, train):
    """[batch, length, dim] -> [batch, length, dim]"""
    return self.stack(x, info=info, train=train)

  def embedded(self, tokens, segments, info):
    """The sum of token, position and segment embeddings: int32 [batch, length] -> [batch, length, dim]"""
    x = add_positions(look_up(self.embed, tokens, self.pad), self.positions, info)
    return self.with_segments(x, segments)

  def with_segments(self, x, segments):
    """Adds segment embeddings, if the model has them: [batch, length, dim] -> the same"""
    if self.segments is not None:
      return add(x, self.segments.embedding[:1]) if segments is None else x + self.segments(segments)
    if segments is not None:
      raise ValueError("This model has no segment embeddings. Leave out segments.")
    return x

  def pooled(self, x, drop):
    """The pooler: the first token's state [batch, dim] -> [batch, dim], or None; `drop` is dropout."""
    return None if self.pooler is None else nn.tanh(self.pooler(x))

  def summary_outputs(self, x, drop):
    """The outputs {"pooled": [batch, dim], "nsp": float32 [batch, 2]} that the model has."""
    pooled = self.pooled(x, drop)
    out = {} if pooled is None else {"pooled": pooled}
    return out if self.nsp is None else {**out, "nsp": self.nsp(pooled).astype(jnp.float32)}

  @property
  def max_length(self):
    return self.positions.max_length

  @nn.nowrap
  def example(self, batch_size=1):
    shape = (batch_size, min(self.max_length, 8)) if self.choose is None else (batch_size, 2, min(self.max_length, 8))
    return (jnp.zeros(shape, jnp.int32),)


class MaskedTokenHead(nn.Module):
  """Masked language model head, tied to the token embedding: `get_masked_lm_output` of their code."""

  dense: nn.Module
  norm: nn.Module
  activation: str = "gelu"

  @nn.compact
  def __call__(self, x, embed):
    """[batch, k, dim] -> float32 [batch, k, vocab_size]"""
    logits = unembed(embed, self.norm(activation_named(self.activation)(self.dense(x))))
    return logits + self.param("bias", initial.zeros, (embed.num_embeddings,))[None, None]


def bert(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int | None = None,
  head: str | None = "pretraining",
  num_classes: int | None = None,
  num_segments: int = 2,
  pad: int | None = None,
  activation: str = "gelu",
  epsilon: float = 1e-12,
  **options: Unpack[Compute],
) -> BERT:
  """A BERT of these sizes; mlp_dim defaults to 4 * dim.

  head: "pretraining" (masked tokens, next sentence), "mlm" (masked tokens), "next_sentence", "classify" (num_classes),
  "classify_tokens" (num_classes each), "question_answering" (start and end of an answer), "multiple_choice", None.
  pad: the padding token; its embedding is not trained.
  epsilon: of the norms.
  """
  dropout, dtype, stacking = computing(options)
  head_dim = sizes.head_dim(dim, num_heads)
  sizes.positive(vocab_size=vocab_size, max_length=max_length, depth=depth, mlp_dim=mlp_dim, num_segments=num_segments)
  sizes.head_fits(head, HEADS, num_classes)
  init = initial.truncated_normal(0.02)
  norm = norms.layer_norm(epsilon, dtype)
  dense = functools.partial(Dense, dtype=dtype, kernel_init=init)
  attention = Attention(num_heads, head_dim, dropout=dropout, dtype=dtype, kernel_init=init, out_init=init)
  mlp = MLP(mlp_dim or 4 * dim, activation, dtype=dtype, kernel_init=init, down_init=init)
  block = PostNormBlock(attention, mlp, norm, dropout=dropout)
  return BERT(
    embed=Embed(vocab_size, dim, dtype=dtype, embedding_init=init),
    segments=Embed(num_segments, dim, dtype=dtype, embedding_init=init),
    positions=Learned(max_length, dim, embedding_init=init),
    norm=norm.copy(),
    stack=stack(block, depth, **stacking),
    pooler=dense(dim) if "pooled" in HEADS[head] else None,
    mlm=MaskedTokenHead(dense(dim), norm.copy(), activation) if "mlm" in HEADS[head] else None,
    nsp=dense(2) if "nsp" in HEADS[head] else None,
    **token_heads(head, num_classes, dense),
    pad=pad,
    dropout=dropout,
  )


VARIANTS = {
  "base": dict(vocab_size=30522, max_length=512, dim=768, depth=12, num_heads=12),
  "large": dict(vocab_size=30522, max_length=512, dim=1024, depth=24, num_heads=16),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "base": 110_106_428,
  "large": 336_226_108,
}
