"""DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter (Sanh et al., 2019).

https://arxiv.org/abs/1910.01108. Code: https://github.com/huggingface/transformers-research-projects, distillation.
"""

import functools
from typing import Unpack

import flax.linen as nn

from zoo.layers import initial, norms, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PostNormBlock
from zoo.layers.compute import Compute, computing
from zoo.layers.dense import Dense
from zoo.layers.embeddings import Embed
from zoo.layers.heads import token_heads
from zoo.layers.mlp import MLP
from zoo.layers.positions import Learned
from zoo.layers.stack import stack
from zoo.models.bert import BERT, MaskedTokenHead

PAPER = {
  "title": "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter",
  "authors": "Sanh et al.",
  "year": 2019,
  "url": "https://arxiv.org/abs/1910.01108",
}
HEADS = ("mlm", "classify", "multiple_choice", "classify_tokens", "question_answering", None)


class DistilBERT(BERT):
  """BERT without segments; heads that pool the sequence have a relu layer of their own in place of the pooler."""

  def pooled(self, x, drop):
    """The first token's state [batch, dim] -> [batch, dim], or None."""
    return None if self.pooler is None else nn.relu(self.pooler(x))


def distilbert(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int | None = None,
  head: str | None = "mlm",
  num_classes: int | None = None,
  pad: int | None = None,
  activation: str = "gelu",
  **options: Unpack[Compute],
) -> DistilBERT:
  """A DistilBERT of these sizes; mlp_dim defaults to 4 * dim.

  head: "mlm" (masked tokens), "classify" (num_classes), "classify_tokens" (num_classes each), "question_answering"
    (start and end of an answer), "multiple_choice", None.
  pad: the padding token; its embedding is not trained.
  """
  dropout, dtype, stacking = computing(options)
  head_dim = sizes.head_dim(dim, num_heads)
  sizes.positive(vocab_size=vocab_size, max_length=max_length, depth=depth, mlp_dim=mlp_dim)
  sizes.head_fits(head, HEADS, num_classes)
  init = initial.truncated_normal(0.02)
  norm = norms.layer_norm(1e-12, dtype)
  dense = functools.partial(Dense, dtype=dtype, kernel_init=init)
  attention = Attention(num_heads, head_dim, dropout=dropout, dtype=dtype, kernel_init=init, out_init=init)
  mlp = MLP(mlp_dim or 4 * dim, activation, dtype=dtype, kernel_init=init, down_init=init)
  block = PostNormBlock(attention, mlp, norm, dropout=dropout)
  return DistilBERT(
    embed=Embed(vocab_size, dim, dtype=dtype, embedding_init=init),
    segments=None,
    positions=Learned(max_length, dim, embedding_init=init),
    norm=norm.copy(),
    stack=stack(block, depth, **stacking),
    pooler=dense(dim) if head in ("classify", "multiple_choice") else None,
    mlm=MaskedTokenHead(dense(dim), norm.copy(), activation) if head == "mlm" else None,
    **token_heads(head, num_classes, dense),
    pad=pad,
    dropout=dropout,
  )


# Section 3: half the layers of BERT base. The vocabularies are those of its uncased and cased versions.
_BASE = dict(max_length=512, dim=768, depth=6, num_heads=12)
VARIANTS = {"base-uncased": dict(vocab_size=30522, **_BASE), "base-cased": dict(vocab_size=28996, **_BASE)}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "base-uncased": 66_985_530,
  "base-cased": 65_812_036,
}
