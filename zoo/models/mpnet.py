"""MPNet: Masked and Permuted Pre-training for Language Understanding (Song et al., 2020).

https://arxiv.org/abs/2004.09297. Code: https://github.com/microsoft/MPNet.
"""

import functools
from typing import Any, Unpack

import jax.numpy as jnp

from zoo.layers import initial, norms, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PostNormBlock
from zoo.layers.compute import Compute, computing
from zoo.layers.dense import Dense
from zoo.layers.embeddings import Embed
from zoo.layers.heads import token_heads
from zoo.layers.mlp import MLP
from zoo.layers.positions import Learned, RelativeBias
from zoo.layers.stack import stack
from zoo.models.bert import MaskedTokenHead
from zoo.models.roberta import HEADS, RoBERTa

PAPER = {
  "title": "MPNet: Masked and Permuted Pre-training for Language Understanding",
  "authors": "Song et al.",
  "year": 2020,
  "url": "https://arxiv.org/abs/2004.09297",
}
BUCKETS, MAX_DISTANCE = 32, 128  # Of the relative biases, in all published models and in their code.


class MPNet(RoBERTa):
  """RoBERTa without segments, with one table of T5's relative biases that all layers share.

  Arguments as RoBERTa; `bias` is that table.
  """

  bias: Any = None  # Never None; only fields with a default may follow those of BERT.

  def layers(self, x, info, *, train):
    """[batch, length, dim] -> [batch, length, dim]"""
    # From indices in the row, with or without padding: distances within a sequence do not depend on its offset.
    index = jnp.arange(x.shape[1], dtype=jnp.int32)[None]
    return self.stack(x, info=info, bias=self.bias(index[:, :, None], index[:, None, :]), train=train)


def mpnet(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int | None = None,
  head: str | None = "mlm",
  num_classes: int | None = None,
  pad: int = 1,
  pooler: bool = True,
  activation: str = "gelu",
  epsilon: float = 1e-5,
  **options: Unpack[Compute],
) -> MPNet:
  """An MPNet of these sizes; mlp_dim defaults to 4 * dim.

  max_length: maximum sequence length; the table of positions has pad + 1 rows more.
  head: "mlm" (masked tokens), "classify" (num_classes), "classify_tokens" (num_classes each), "question_answering"
    (start and end of an answer), "multiple_choice", None.
  pad: the padding token; its embedding is not trained.
  pooler: whether the model without a head has one.
  epsilon: of the norms.
  """
  dropout, dtype, stacking = computing(options)
  head_dim = sizes.head_dim(dim, num_heads)
  sizes.positive(vocab_size=vocab_size, max_length=max_length, depth=depth, mlp_dim=mlp_dim)
  sizes.head_fits(head, HEADS, num_classes)
  if not 0 <= pad < vocab_size:
    raise ValueError(f"pad is {pad}. It must be a token id: at least 0, below vocab_size {vocab_size}.")
  init = initial.truncated_normal(0.02)
  norm = norms.layer_norm(epsilon, dtype)
  dense = functools.partial(Dense, dtype=dtype, kernel_init=init)
  attention = Attention(num_heads, head_dim, dropout=dropout, dtype=dtype, kernel_init=init, out_init=init)
  mlp = MLP(mlp_dim or 4 * dim, activation, dtype=dtype, kernel_init=init, down_init=init)
  block = PostNormBlock(attention, mlp, norm, dropout=dropout)
  return MPNet(
    embed=Embed(vocab_size, dim, dtype=dtype, embedding_init=init),
    segments=None,
    positions=Learned(max_length, dim, embedding_init=init, offset=pad + 1),
    bias=RelativeBias(num_heads, BUCKETS, MAX_DISTANCE, embedding_init=init),
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


# Section 3.1 of the paper: the sizes of BERT base; the vocabulary is that of its uncased version and five tokens.
VARIANTS = {"base": dict(vocab_size=30527, max_length=512, dim=768, depth=12, num_heads=12)}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "base": 109_518_527,
}
