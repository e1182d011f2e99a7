"""Longformer: The Long-Document Transformer (Beltagy et al., 2020).

https://arxiv.org/abs/2004.05150. Code: https://github.com/allenai/longformer.
"""

import functools
from typing import Unpack

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, norms, patterns, sizes
from zoo.layers.blocks import PostNormBlock
from zoo.layers.compute import Compute, computing
from zoo.layers.dense import Dense
from zoo.layers.embeddings import Embed
from zoo.layers.global_attention import GlobalAttention
from zoo.layers.heads import refuse_packed, token_heads
from zoo.layers.mlp import MLP
from zoo.layers.positions import Learned
from zoo.layers.sequence import SequenceInfo
from zoo.layers.stack import stack
from zoo.models.bert import MaskedTokenHead
from zoo.models.roberta import HEADS, RoBERTa

PAPER = {
  "title": "Longformer: The Long-Document Transformer",
  "authors": "Beltagy et al.",
  "year": 2020,
  "url": "https://arxiv.org/abs/2004.05150",
}


class Longformer(RoBERTa):
  """RoBERTa whose tokens attend within a window; global tokens attend to all, and all to them.

  Arguments as RoBERTa, and `separator`, the token that ends a question.
  """

  separator: int | None = None

  @nn.compact
  def __call__(
    self,
    tokens,
    *,
    segments=None,
    valid=None,
    positions=None,
    segment_ids=None,
    is_global=None,
    predict=None,
    train=False,
  ):
    """Hidden states and the outputs of the heads.

    Args:
      tokens, segments, positions, segment_ids, predict: as of `zoo.models.bert.BERT`.
      valid: bool [batch, length], True = a real token; others are masked. Or int32, 0 = masked, 1 = real, 2 = real and
        global.
      is_global: bool [batch, length], True = a global token, beside those of `valid`. None: those of the head, by the
        paper's section 5: of "classify" the first token; of "question_answering" the tokens before the first separator;
        of "multiple_choice" those after the second of two separators in a row; of others none.

    Returns:
      as BERT.
    """
    info = self._info(tokens, valid, positions, segment_ids, is_global)
    shape = tokens.shape
    tokens, segments = self.rows(tokens, segments)
    sizes.tokens_fit(tokens, segments=segments)
    refuse_packed(segment_ids, self.summarizes or self.pooler is not None)
    drop = functools.partial(nn.Dropout(self.dropout), deterministic=not train)
    x = drop(self.norm(self.embedded(tokens, segments, info)))
    x = self.layers(x, info._replace(positions=None), train=train)
    out = {"hidden": x, **self.masked_tokens(x, predict), **self.summary_outputs(x[:, 0], drop)}
    before = {} if self.answer is not None else {"before": drop}
    return {**out, **self.head_outputs(out["pooled"] if self.summarizes else x, shape[:-1], **before)}

  @nn.nowrap
  def _info(self, tokens, valid, positions, segment_ids, is_global):
    """Facts about the tokens, of rows [batch, length]."""
    for name, given in (("valid", valid), ("is_global", is_global)):
      if given is not None and given.shape != tokens.shape:
        raise ValueError(
          f"{name} is of shape {list(given.shape)}, the tokens are {list(tokens.shape)}. Make them equal."
        )
    marked = is_global
    if marked is None:
      marked = self._global_tokens(tokens)
    if valid is not None and valid.dtype != bool:
      marked = valid == 2 if marked is None else marked.astype(bool) | (valid == 2)
      valid = valid > 0
    valid, positions, marked = self.rows(valid, positions, marked)
    return SequenceInfo(valid, positions, segment_ids, marked)

  @nn.nowrap
  def _global_tokens(self, tokens):
    """The global tokens of the head: int32 [..., length] -> bool [..., length], or None."""
    if self.classify is not None:
      return jnp.broadcast_to(jnp.arange(tokens.shape[-1]) == 0, tokens.shape)
    if self.answer is None and self.choose is None:
      return None
    ended = jnp.cumsum(tokens == self.separator, axis=-1)
    if self.answer is not None:
      return (ended == 0) & (ended[..., -1:] > 0)
    places = jnp.arange(tokens.shape[-1]).reshape((1,) * (tokens.ndim - 1) + (-1,))
    return (ended > 0) & (places > jnp.argmax(ended > 0, axis=-1, keepdims=True) + 1)


def longformer(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int | None = None,
  head: str | None = "mlm",
  num_classes: int | None = None,
  window: int | list[int] = 512,
  num_segments: int = 1,
  pad: int = 1,
  separator: int = 2,
  pooler: bool = True,
  activation: str = "gelu",
  epsilon: float = 1e-5,
  **options: Unpack[Compute],
) -> Longformer:
  """A Longformer of these sizes; those not listed here as in `zoo.models.roberta`.

  window: a token attends to itself and window / 2 tokens on each side; even. A list has one for each layer.
  separator: the token between a question and what follows, see `Longformer.__call__`.
  """
  dropout, dtype, stacking = computing(options)
  head_dim = sizes.head_dim(dim, num_heads)
  sizes.positive(vocab_size=vocab_size, max_length=max_length, depth=depth, mlp_dim=mlp_dim, num_segments=num_segments)
  sizes.head_fits(head, HEADS, num_classes)
  for name, token in (("pad", pad), ("separator", separator)):
    if not 0 <= token < vocab_size:
      raise ValueError(f"{name} is {token}. It must be a token id: at least 0, below vocab_size {vocab_size}.")
  init = initial.truncated_normal(0.02)
  norm = norms.layer_norm(epsilon, dtype)
  dense = functools.partial(Dense, dtype=dtype, kernel_init=init)
  attention = GlobalAttention(num_heads, head_dim, dropout=dropout, dtype=dtype, kernel_init=init, out_init=init)
  mlp = MLP(mlp_dim or 4 * dim, activation, dtype=dtype, kernel_init=init, down_init=init)
  blocks = tuple(
    PostNormBlock(attention.copy(mask=rule), mlp, norm, dropout=dropout) for rule in windows(window, depth)
  )
  return Longformer(
    embed=Embed(vocab_size, dim, dtype=dtype, embedding_init=init),
    segments=Embed(num_segments, dim, dtype=dtype, embedding_init=init),
    positions=Learned(max_length, dim, embedding_init=init, offset=pad + 1),
    norm=norm.copy(),
    stack=stack(blocks if len(blocks) > 1 else blocks[0], depth, **stacking),
    pooler=dense(dim) if head == "multiple_choice" or head is None and pooler else None,
    summary=dense(dim) if head == "classify" else None,
    mlm=MaskedTokenHead(dense(dim), norm.copy(), "gelu") if head == "mlm" else None,
    **token_heads(head, num_classes, dense),
    dropout=dropout,
    pad=pad,
    separator=separator,
  )


def windows(window, depth):
  """The patterns of the layers: of all alike, or of each.

  Raises:
    ValueError: the list has not one window for each layer, or a window is odd.
  """
  each = [window] if isinstance(window, int) else list(window)
  if len(each) not in ({1} if isinstance(window, int) else {depth}):
    raise ValueError(
      f"window lists {len(each)} windows for {depth} layers. Give one for each layer, or one int for all."
    )
  rules = [patterns.window(size) for size in each]
  return rules[:1] if len(set(rules)) == 1 else rules


# Table 7 of the paper: RoBERTa's sizes, and its positions eight times over.
VARIANTS = {
  "base-4096": dict(vocab_size=50265, max_length=4096, dim=768, depth=12, num_heads=12),
  "large-4096": dict(vocab_size=50265, max_length=4096, dim=1024, depth=24, num_heads=16),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "base-4096": 148_711_257,
  "large-4096": 434_653_273,
}
