"""T5: Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer (Raffel et al., 2019).

https://arxiv.org/abs/1910.10683; mT5: https://arxiv.org/abs/2010.11934. Code: https://github.com/google-research/t5x.
"""

import functools
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, TypedDict, Unpack

import flax.linen as nn

from zoo.layers import initial, masks, norms, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PreNormBlock
from zoo.layers.compute import Compute, resolve
from zoo.layers.dense import Dense
from zoo.layers.embeddings import Embed
from zoo.layers.heads import OwnLogits, TanhHead, TiedLogits, token_heads
from zoo.layers.mlp import MLP, GatedMLP
from zoo.layers.positions import RelativeBias
from zoo.layers.sequence import SequenceInfo
from zoo.layers.stack import stack
from zoo.models.encoder_decoder import EncoderDecoder

PAPER = {
  "title": "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
  "authors": "Raffel et al.",
  "year": 2019,
  "url": "https://arxiv.org/abs/1910.10683",
}
# Keyed by the prefix of a variant's name.
PAPERS = {
  "v1_1": {
    "title": "GLU Variants Improve Transformer",
    "authors": "Shazeer",
    "year": 2020,
    "url": "https://arxiv.org/abs/2002.05202",
  },
  "mt5": {
    "title": "mT5: A massively multilingual pre-trained text-to-text transformer",
    "authors": "Xue et al.",
    "year": 2020,
    "url": "https://arxiv.org/abs/2010.11934",
  },
}
HEADS = ("lm", "encoder", "classify", "classify_tokens", "question_answering", None)


class T5Tower(nn.Module):
  """T5's tower: layers that share one table of relative biases, and a final norm."""

  bias: nn.Module
  stack: nn.Module
  norm: nn.Module
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, context=None, *, info=SequenceInfo(), context_info=SequenceInfo(), train=False):
    """[batch, length, dim] -> [batch, length, dim]; arguments as of `zoo.layers.towers.Tower`."""
    drop = nn.Dropout(self.dropout, deterministic=not train)
    if self.is_mutable_collection("cache") and not self.is_initializing():
      bias = self.bias.rule()  # Only the layers know the positions of cached keys.
    else:
      # For packed sequences too: distances within a sequence do not depend on its offset.
      positions = SequenceInfo(positions=info.positions).token_positions(x.shape[1])
      bias = self.bias(positions[:, :, None], positions[:, None, :])
    x = self.stack(drop(x), context, info=info, context_info=context_info, bias=bias, train=train)
    return drop(self.norm(x))

  max_length: ClassVar[None] = None  # Relative positions are unlimited.


class NoLayers(nn.Module):
  """Tower without layers: the final norm alone."""

  norm: nn.Module
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, context=None, *, info=SequenceInfo(), context_info=SequenceInfo(), train=False):
    """[batch, length, dim] -> [batch, length, dim]; arguments as `zoo.layers.towers.Tower`, of which only x is used."""
    drop = nn.Dropout(self.dropout, deterministic=not train)
    return drop(self.norm(drop(x)))

  max_length: ClassVar[None] = None


class T5Sizes(TypedDict, total=False):
  """Options shared by T5 and its relatives.

  head_dim, mlp_dim, decoder_depth: dim / num_heads, 4 * dim, depth if None; a decoder of 0 layers has its norm only.
  head: "lm" (the next token), "encoder" (no decoder), "classify" (num_classes), "classify_tokens" (num_classes each,
    from the encoder alone), "question_answering" (start and end of an answer), None (hidden states).
  scaled: whether hidden states are divided by sqrt(dim) before the output layer; `tied` if None.
  num_buckets, max_distance: of the relative biases.
  start_token: the first decoder token. eos: where "classify" reads.
  epsilon: of the norms.
  """

  head_dim: Annotated[int | None, None]
  mlp_dim: Annotated[int | None, None]
  decoder_depth: Annotated[int | None, None]
  head: Annotated[str | None, "lm"]
  num_classes: Annotated[int | None, None]
  scaled: Annotated[bool | None, None]
  num_buckets: Annotated[int, 32]
  max_distance: Annotated[int, 128]
  start_token: Annotated[int, 0]
  eos: Annotated[int, 1]
  epsilon: Annotated[float, 1e-6]


class T5Options(T5Sizes, Compute):
  """Options that the factories of T5 and its relatives pass on to `compose`."""


def t5(
  *,
  vocab_size: int,
  dim: int,
  depth: int,
  num_heads: int,
  activation: str = "relu",
  gated: bool = False,
  tied: bool = True,
  **options: Unpack[T5Options],
) -> EncoderDecoder:
  """A T5 of these sizes; `options` as of `T5Sizes` and `zoo.layers.compute.Compute`.

  activation, gated: of the feed-forward networks; T5 1.1 has gated "gelu_tanh".
  tied: whether the output layer is tied to the token embedding; not in T5 1.1.
  """
  kind: dict[str, Any] = dict(activation=activation, gated=gated, tied=tied, **options)
  attend = lambda relative, **attention: Attention(**attention)
  return compose(attend, T5Tower, vocab_size=vocab_size, dim=dim, depth=depth, num_heads=num_heads, **kind)


def compose(
  attend: Callable,
  tower: Callable,
  *,
  vocab_size,
  dim,
  depth,
  num_heads,
  activation,
  gated,
  tied,
  **options: Unpack[T5Options],
) -> EncoderDecoder:
  """Builds a T5 from its attention and towers, either of which may own the relative biases; sizes as in `t5`.

  attend: (bias, **options of Attention) -> the self-attention of a layer, which may own the bias.
  tower: (bias, stack=, norm=, dropout=) -> the tower, which may share one bias among its layers.
  """
  common = resolve(T5Options, options)
  head, dropout, dtype = common.head, common.dropout, common.dtype
  head_dim = sizes.head_dim(dim, num_heads) if common.head_dim is None else common.head_dim
  mlp_dim = 4 * dim if common.mlp_dim is None else common.mlp_dim
  sizes.positive(vocab_size=vocab_size, dim=dim, depth=depth, num_heads=num_heads, head_dim=head_dim, mlp_dim=mlp_dim)
  if common.decoder_depth != 0:
    sizes.positive(decoder_depth=common.decoder_depth)
  sizes.head_fits(head, HEADS, common.num_classes)
  buckets = common.num_buckets, common.max_distance
  if buckets[0] < 4 or buckets[1] <= buckets[0] // 2:
    raise ValueError(
      f"num_buckets is {buckets[0]}, max_distance {buckets[1]}. num_buckets must be at least 4, and max_distance "
      "more than half of it."
    )
  # Initializers of mesh_tensorflow/transformer: the query's replaces the missing 1/sqrt(head_dim).
  width = initial.normal(dim**-0.5)
  norm = norms.rms_norm(common.epsilon, dtype)
  attention: dict[str, Any] = dict(
    num_heads=num_heads,
    head_dim=head_dim,
    scale=1.0,
    use_bias=False,
    dropout=dropout,
    dtype=dtype,
    kernel_init=width,
    out_init=initial.normal((num_heads * head_dim) ** -0.5),
    query_init=initial.normal((dim * head_dim) ** -0.5),
  )
  mlp = (GatedMLP if gated else MLP)(
    mlp_dim,
    activation,
    use_bias=False,
    dropout=dropout,
    dtype=dtype,
    kernel_init=width,
    down_init=initial.normal(mlp_dim**-0.5),
  )

  def of_depth(depth, *, mask=None, cross=None):
    if depth == 0:
      return NoLayers(norm.copy(), dropout)
    relative = RelativeBias(num_heads, *buckets, bidirectional=mask is None, embedding_init=width)
    block = PreNormBlock(attend(relative, mask=mask, **attention), mlp, norm, cross, dropout=dropout)
    layers = stack(block, depth, **common.stacking)
    return tower(relative, stack=layers, norm=norm.copy(), dropout=dropout)

  scale = dim**-0.5 if (tied if common.scaled is None else common.scaled) else 1.0
  logits = TiedLogits(scale) if tied else OwnLogits(vocab_size, scale, dtype=dtype, kernel_init=width)
  dense = functools.partial(Dense, dtype=dtype, kernel_init=width)
  decodes = head not in ("encoder", "classify_tokens")
  decoder_depth = depth if common.decoder_depth is None else common.decoder_depth
  return EncoderDecoder(
    embed=Embed(vocab_size, dim, dtype=dtype, embedding_init=initial.normal(1.0)),
    encoder=of_depth(depth),
    decoder=of_depth(decoder_depth, mask=masks.causal, cross=Attention(**attention)) if decodes else None,
    logits=logits if head == "lm" else None,
    **token_heads(head, common.num_classes, dense, lambda classes: TanhHead(dense(dim), dense(classes), dropout)),
    start_token=common.start_token,
    eos=common.eos,
  )


def variants(prefix, vocab_size, widths, **sizes):
  """VARIANTS from rows: {name: (dim, depth, num_heads, head_dim, mlp_dim)} -> {name: sizes}."""
  names = ("dim", "depth", "num_heads", "head_dim", "mlp_dim")
  return {f"{prefix}{name}": dict(vocab_size=vocab_size, **dict(zip(names, row)), **sizes) for name, row in widths}


# Table 14 of the paper and section 3.6; https://github.com/google-research/text-to-text-transfer-transformer,
# released_checkpoints.md; https://github.com/google-research/multilingual-t5.
GATED = dict(activation="gelu_tanh", gated=True, tied=False)
WIDTHS = (
  ("small", (512, 8, 6, 64, 1024)),
  ("base", (768, 12, 12, 64, 2048)),
  ("large", (1024, 24, 16, 64, 2816)),
  ("xl", (2048, 24, 32, 64, 5120)),
  ("xxl", (4096, 24, 64, 64, 10240)),
)
VARIANTS = {
  **variants(
    "t5-",
    32128,
    (
      ("small", (512, 6, 8, 64, 2048)),
      ("base", (768, 12, 12, 64, 3072)),
      ("large", (1024, 24, 16, 64, 4096)),
      ("3b", (1024, 24, 32, 128, 16384)),
      ("11b", (1024, 24, 128, 128, 65536)),
    ),
  ),
  **variants("v1_1-", 32128, WIDTHS, **GATED),
  **variants("mt5-", 250112, WIDTHS, **GATED),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "t5-small": 60_506_624,
  "t5-base": 222_903_552,
  "t5-large": 737_668_096,
  "t5-3b": 2_851_598_336,
  "t5-11b": 11_307_321_344,
  "v1_1-small": 76_961_152,
  "v1_1-base": 247_577_856,
  "v1_1-large": 783_150_080,
  "v1_1-xl": 2_849_757_184,
  "v1_1-xxl": 11_135_332_352,
  "mt5-small": 300_176_768,
  "mt5-base": 582_401_280,
  "mt5-large": 1_229_581_312,
  "mt5-xl": 3_742_619_648,
  "mt5-xxl": 12_921_057_280,
}
