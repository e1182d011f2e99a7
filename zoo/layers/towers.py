"""Towers: a stack of layers with positions and norms, alone or as an encoder-decoder pair."""

from typing import Annotated, TypedDict, Unpack

import flax.linen as nn

from zoo.layers import masks, sizes
from zoo.layers.attention import Attention
from zoo.layers.compute import Compute, resolve
from zoo.layers.mlp import MLP
from zoo.layers.positions import add_positions
from zoo.layers.sequence import SequenceInfo
from zoo.layers.stack import stack


class Tower(nn.Module):
  """A stack of layers: norm(stack(dropout(first_norm(x + positions)))), without the norms that are None.

  Args:
    positions: called as `zoo.layers.positions.Learned` is.
    stack: of `zoo.layers.stack`.
    first_norm, norm: before and after the layers.
    dropout: rate of dropout before the layers.
  """

  positions: nn.Module
  stack: nn.Module
  first_norm: nn.Module | None = None
  norm: nn.Module | None = None
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, context=None, *, info=SequenceInfo(), context_info=SequenceInfo(), train=False):
    """[batch, length, dim] -> [batch, length, dim]

    Args:
      x: [batch, length, dim]
      context: [batch, context length, context dim] that the layers attend to, or None.
      info, context_info: facts about the tokens of x and of context.
    """
    x = add_positions(x, self.positions, info, self.variables.get("cache"))
    x = x if self.first_norm is None else self.first_norm(x)
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    x = self.stack(x, context, info=info, context_info=context_info, train=train)
    return x if self.norm is None else self.norm(x)

  @property
  def max_length(self):
    return self.positions.max_length


class PairSizes(TypedDict, total=False):
  """Optional sizes of an encoder-decoder pair.

  mlp_dim: width of the feed-forward networks; None: 4 * dim.
  decoder_depth, decoder_heads, decoder_mlp_dim: of the decoder; None: the encoder's.
  """

  mlp_dim: Annotated[int | None, None]
  decoder_depth: Annotated[int | None, None]
  decoder_heads: Annotated[int | None, None]
  decoder_mlp_dim: Annotated[int | None, None]


class PairOptions(PairSizes, Compute):
  """Options that factories of encoder-decoders pass on to `encoder_decoder_towers`."""


def encoder_decoder_towers(
  block,
  positions,
  *,
  dim,
  depth,
  num_heads,
  activation,
  init,
  norm,
  first_norm=None,
  last_norm=None,
  key_bias=None,
  **options: Unpack[PairOptions],
):
  """{"encoder": Tower, "decoder": Tower}; the decoder has cross-attention to the encoder's output.

  Args:
    block: a class of `zoo.layers.blocks`.
    positions: of the encoder, of the decoder.
    init: initializer of all kernels.
    norm, first_norm, last_norm: of the blocks; before the layers and after them, or None.
    key_bias: as in `Attention`.
    options: of `PairSizes` and `zoo.layers.compute.Compute`.
  """
  pair_options = resolve(PairOptions, options)
  dropout, dtype = pair_options.dropout, pair_options.dtype

  def tower(positions, depth, heads, mlp_dim, *, of_heads, mask=None, crosses=False):
    head_dim = sizes.head_dim(dim, heads, heads=of_heads)
    attention = Attention(
      heads, head_dim, key_bias=key_bias, dropout=dropout, dtype=dtype, kernel_init=init, out_init=init
    )
    mlp = MLP(mlp_dim or 4 * dim, activation, dtype=dtype, kernel_init=init, down_init=init)
    layer = block(attention.copy(mask=mask), mlp, norm, attention if crosses else None, dropout=dropout)
    norms = {"first_norm": first_norm, "norm": last_norm}
    norms = {name: None if part is None else part.copy() for name, part in norms.items()}
    return Tower(positions, stack(layer, depth, **pair_options.stacking), **norms, dropout=dropout)

  mlp_dim, decoder_mlp_dim = pair_options.mlp_dim, pair_options.decoder_mlp_dim
  sizes.positive(
    depth=depth, mlp_dim=mlp_dim, decoder_depth=pair_options.decoder_depth, decoder_mlp_dim=decoder_mlp_dim
  )
  encoder = tower(positions[0], depth, num_heads, mlp_dim, of_heads="num_heads")
  decoder_sizes = (
    depth if pair_options.decoder_depth is None else pair_options.decoder_depth,
    num_heads if pair_options.decoder_heads is None else pair_options.decoder_heads,
    mlp_dim if decoder_mlp_dim is None else decoder_mlp_dim,
  )
  decoder = tower(positions[1], *decoder_sizes, of_heads="decoder_heads", mask=masks.causal, crosses=True)
  return {"encoder": encoder, "decoder": decoder}
