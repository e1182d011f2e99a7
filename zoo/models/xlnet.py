"""XLNet: Generalized Autoregressive Pretraining for Language Understanding (Yang et al., 2019).

Code: https://github.com/zihangdai/xlnet.
"""

import functools
from typing import Unpack

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, norms, sizes
from zoo.layers.compute import Compute, resolve
from zoo.layers.dense import Dense
from zoo.layers.embeddings import Embed, last, unembed
from zoo.layers.heads import TokenHeads, token_heads
from zoo.layers.mixed_precision import add
from zoo.layers.mlp import MLP
from zoo.layers.relative import MEMORY
from zoo.layers.sequence import SequenceInfo
from zoo.layers.stack import stack
from zoo.layers.two_streams import Reading, Streams, TwoStreamAttention, TwoStreamBlock, queries
from zoo.models.model import PredictsMaskedTokens

PAPER = {
  "title": "XLNet: Generalized Autoregressive Pretraining for Language Understanding",
  "authors": "Yang et al.",
  "year": 2019,
  "url": "https://arxiv.org/abs/1906.08237",
}
HEADS = ("mlm", "classify", "multiple_choice", "classify_tokens", "question_answering", None)


class XLNet(TokenHeads, PredictsMaskedTokens):
  """Layers of two streams over token embeddings.

  Args:
    embed, stack: the embedding, and the layers.
    summary: of the last token's vector, before the heads of sequences; None: there is no such head.
    dropout: rate before and after the layers.
  """

  embed: nn.Module
  stack: nn.Module
  summary: nn.Module | None = None
  dropout: float = 0.0

  @property
  def carries(self):
    return {MEMORY: "rows"} if self.head is None else {}

  @nn.compact
  def __call__(self, tokens, *, valid=None, segments=None, sees=None, predict=None, train=False):
    """Hidden states, and what the heads make of them.

    Args:
      tokens: int32 [batch, length], or [batch, choices, length] for the head "multiple_choice".
      valid: bool [batch, length], True = a real token; others are masked.
      segments: int32 [batch, length], 0 or 1 for the first and the second part of a pair.
      sees: bool [batch, length, length], whether a token (second axis) reads another (third axis); itself it reads
        wherever it is known. None: all read all.
      predict: int32 [batch, k], tokens that are to be predicted by those that they see, without being known themselves;
        None: none. With it hidden states are theirs.

    Returns:
      dict of "hidden" [batch, length or k, dim] and, where the model has the head:
        "mlm" [batch, length or k, vocab_size]; "logits" [batch, num_classes], of tokens [batch, length, num_classes],
        of choices [batch, choices]; "start", "end" [batch, length]. All logits are float32.
    """
    shape = tokens.shape[:-1]
    tokens, valid, segments = self.rows(tokens, valid, segments)
    sizes.tokens_fit(tokens, valid=valid, segments=segments)
    if sees is not None and sees.shape != (*tokens.shape, tokens.shape[1]):
      raise ValueError(
        f"sees is of shape {list(sees.shape)}, the tokens are {list(tokens.shape)}. Add an axis of keys."
      )
    drop = nn.Dropout(self.dropout, deterministic=not train)
    content = self.embed(tokens)
    unknown = self.param("unknown", self.embed.embedding_init, content.shape[-1:])
    asked = None if predict is None else drop(queries(unknown, predict, content.dtype))
    reading = Reading(SequenceInfo(valid), sees, predict, segments)
    streams = self.stack(Streams(drop(content), asked), reading=reading, train=train)
    x = drop(streams.content if predict is None else streams.queries)
    y = x if self.summary is None else drop(nn.tanh(self.summary(last(x, valid))))
    return {"hidden": x, **({} if self.mlm is None else {"mlm": self.to_logits(x)}), **self.head_outputs(y, shape)}

  @nn.nowrap
  def example(self, batch_size=1):
    return (jnp.zeros((batch_size, 2, 8) if self.choose is not None else (batch_size, 8), jnp.int32),)


class BiasedLogits(nn.Module):
  """x @ embedding.T + bias, by the table that looks tokens up."""

  @nn.compact
  def __call__(self, x, embed):
    """[..., dim] -> float32 [..., vocab_size]"""
    logits = unembed(embed, x)
    return add(logits, self.param("bias", initial.zeros, logits.shape[-1:]))


def xlnet(
  *,
  vocab_size: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int | None = None,
  memory_length: int = 0,
  clamp: int | None = None,
  head: str | None = "mlm",
  num_classes: int | None = None,
  activation: str = "gelu",
  epsilon: float = 1e-12,
  **options: Unpack[Compute],
) -> XLNet:
  """An XLNet of these sizes; mlp_dim is 4 * dim if None.

  memory_length: tokens of the segment before that tokens attend to, where a call has a memory.
  clamp: larger distances, either way, count as it; None: none is too large.
  head: "mlm" (tokens by those that they see), "classify" (num_classes, read at the last valid token), "classify_tokens"
    (num_classes each), "question_answering" (where an answer starts and ends), "multiple_choice", None.
  epsilon: of the norms.
  """
  compute = resolve(Compute, options)
  dropout, dtype = compute.dropout, compute.dtype
  head_dim = sizes.head_dim(dim, num_heads)
  sizes.positive(vocab_size=vocab_size, depth=depth, mlp_dim=mlp_dim, clamp=clamp)
  sizes.even(dim=dim)
  sizes.head_fits(head, HEADS, num_classes)
  if memory_length < 0:
    raise ValueError(f"memory_length is {memory_length}. It must be at least 0.")
  if compute.drop_path:
    raise ValueError(f"drop_path is {compute.drop_path}, and the layers of an xlnet cannot be dropped. Use dropout.")
  init = initial.normal(0.02)
  dense = functools.partial(Dense, dtype=dtype, kernel_init=init)
  attention = TwoStreamAttention(
    num_heads, head_dim, memory_length=memory_length, clamp=clamp, dropout=dropout, dtype=dtype, kernel_init=init
  )
  mlp = MLP(mlp_dim or 4 * dim, activation, dropout=dropout, dtype=dtype, kernel_init=init, down_init=init)
  block = TwoStreamBlock(attention, mlp, norms.layer_norm(epsilon, dtype), dropout)
  return XLNet(
    embed=Embed(vocab_size, dim, dtype=dtype, embedding_init=init),
    stack=stack(block, depth, **compute.stacking),
    summary=dense(dim) if head in ("classify", "multiple_choice") else None,
    mlm=BiasedLogits() if head == "mlm" else None,
    **token_heads(head, num_classes, dense),
    dropout=dropout,
  )


# Section 3.1 of the paper and its release.
VARIANTS = {
  "base": dict(vocab_size=32000, dim=768, depth=12, num_heads=12),
  "large": dict(vocab_size=32000, dim=1024, depth=24, num_heads=16),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {"base": 116_750_336, "large": 360_300_800}
