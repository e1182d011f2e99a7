"""UMT5: T5 1.1 whose layers have a relative bias each.

UniMax: Fairer and more Effective Language Sampling for Large-Scale Multilingual Pretraining (Chung et al., 2023).
https://arxiv.org/abs/2304.09151. Code: https://github.com/google-research/t5x.
"""

from typing import Any, ClassVar, Unpack

import flax.linen as nn

from zoo.layers.attention import Attention
from zoo.layers.sequence import SequenceInfo
from zoo.models.encoder_decoder import EncoderDecoder
from zoo.models.t5 import GATED, WIDTHS, T5Options, compose, variants

PAPER = {
  "title": "UniMax: Fairer and more Effective Language Sampling for Large-Scale Multilingual Pretraining",
  "authors": "Chung et al.",
  "year": 2023,
  "url": "https://arxiv.org/abs/2304.09151",
}


class BiasedAttention(Attention):
  """Self-attention with its own `zoo.layers.positions.RelativeBias`. Arguments as Attention."""

  relative: Any = None  # Never None; only fields with a default may follow those of Attention.

  def __call__(self, x, context=None, *, bias=None, **options):
    """[batch, length, dim] -> [batch, length, dim]; arguments as Attention, whose `bias` is ignored."""
    return super().__call__(x, context, bias=self.relative.rule(), **options)


class UMT5Tower(nn.Module):
  """UMT5's tower: layers and a final norm."""

  stack: nn.Module
  norm: nn.Module
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, context=None, *, info=SequenceInfo(), context_info=SequenceInfo(), train=False):
    """[batch, length, dim] -> [batch, length, dim]; arguments as of `zoo.layers.towers.Tower`."""
    drop = nn.Dropout(self.dropout, deterministic=not train)
    return drop(self.norm(self.stack(drop(x), context, info=info, context_info=context_info, train=train)))

  max_length: ClassVar[None] = None  # Relative positions are unlimited.


def umt5(
  *,
  vocab_size: int,
  dim: int,
  depth: int,
  num_heads: int,
  activation: str = "gelu_tanh",
  gated: bool = True,
  tied: bool = False,
  **options: Unpack[T5Options],
) -> EncoderDecoder:
  """A UMT5 of these sizes; arguments as `zoo.models.t5`."""

  def attend(relative, **attention):
    return BiasedAttention(relative=relative, **attention)

  def tower(relative, **parts):
    return UMT5Tower(**parts)

  kind: dict[str, Any] = dict(activation=activation, gated=gated, tied=tied, **options)
  return compose(attend, tower, vocab_size=vocab_size, dim=dim, depth=depth, num_heads=num_heads, **kind)


# Section 4 of the paper: the sizes of mT5 with a vocabulary of 256,000 pieces; as published, padded.
VARIANTS = variants("", 256384, [row for row in WIDTHS if row[0] != "large"], **GATED)
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "small": 306_601_984,
  "base": 592_043_520,
  "xl": 3_768_356_864,
  "xxl": 12_972_531_712,
}
