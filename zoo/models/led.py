"""LED, the Longformer encoder-decoder (Beltagy et al., 2020), section 7 of the paper.

https://arxiv.org/abs/2004.05150. Code: https://github.com/allenai/longformer.
"""

import functools
from typing import Unpack

import jax.numpy as jnp

from zoo.layers import initial, norms, sizes
from zoo.layers.blocks import PostNormBlock
from zoo.layers.compute import resolve
from zoo.layers.dense import Dense
from zoo.layers.embeddings import Embed
from zoo.layers.global_attention import GlobalAttention
from zoo.layers.heads import TiedLogits, token_heads
from zoo.layers.mlp import MLP
from zoo.layers.positions import Learned
from zoo.layers.sequence import SequenceInfo
from zoo.layers.stack import stack
from zoo.layers.towers import PairOptions, Tower, encoder_decoder_towers
from zoo.models.encoder_decoder import EncoderDecoder
from zoo.models.longformer import PAPER as PAPER
from zoo.models.longformer import windows

HEADS = ("lm", "question_answering", None)


class LED(EncoderDecoder):
  """BART whose encoder attends within a window; its global tokens attend to all, and all to them.

  Arguments as EncoderDecoder.
  """

  def __call__(
    self,
    tokens,
    /,
    decoder_tokens=None,
    *,
    valid=None,
    decoder_valid=None,
    segment_ids=None,
    decoder_segment_ids=None,
    is_global=None,
    train=False,
  ):
    """As EncoderDecoder, with the global tokens of the encoder.

    Args:
      valid: bool [batch, length], True = a real token; others are masked. Or int32, 0 = masked, 1 = real, 2 = real and
        global; `encode` and generation take it too.
      is_global: bool [batch, length], True = a global token, beside those of `valid`. The paper has the first token.
    """
    if is_global is not None:
      if is_global.shape != tokens.shape:
        raise ValueError(
          f"is_global is of shape {list(is_global.shape)}, the tokens are {list(tokens.shape)}. Make them equal."
        )
      real = jnp.ones(tokens.shape, jnp.int32) if valid is None else valid.astype(jnp.int32)
      valid = jnp.where(is_global & (real > 0), 2, real)
    return super().__call__(
      tokens,
      decoder_tokens,
      valid=valid,
      decoder_valid=decoder_valid,
      segment_ids=segment_ids,
      decoder_segment_ids=decoder_segment_ids,
      train=train,
    )

  def encode(self, tokens, /, *, valid=None, segment_ids=None, train=False):
    """Runs the encoder: int32 [batch, length] -> [batch, length, dim]; `valid` as of `__call__`."""
    sizes.tokens_fit(tokens, valid=valid)
    marked = None if valid is None or valid.dtype == bool else valid == 2
    info = SequenceInfo(None if valid is None else valid > 0, None, segment_ids, marked)
    return self.encoder(self._embedded(self.embed, tokens), info=info, train=train)


def led(
  *,
  vocab_size: int,
  source_length: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  head: str | None = "lm",
  window: int | list[int] = 512,
  activation: str = "gelu",
  logits_bias: bool = False,
  pad: int | None = 1,
  start_token: int = 2,
  eos: int = 2,
  **options: Unpack[PairOptions],
) -> LED:
  """An LED of these sizes; those not listed here as in `zoo.models.bart`.

  source_length, max_length: tokens of the encoder, of the decoder, at most.
  head: "lm" (the next token), "question_answering" (start and end of an answer), None (hidden states).
  window: of the encoder: a token attends to itself and window / 2 tokens on each side; even. A list has one for each
    layer.
  """
  sizes.positive(vocab_size=vocab_size, source_length=source_length, max_length=max_length, dim=dim)
  sizes.head_fits(head, HEADS, None)
  pair = resolve(PairOptions, options)
  dropout, dtype = pair.dropout, pair.dtype
  init = initial.normal(0.02)
  norm = norms.layer_norm(1e-5, dtype)
  towers = encoder_decoder_towers(
    PostNormBlock,
    [Learned(length, dim, embedding_init=init) for length in (source_length, max_length)],
    dim=dim,
    depth=depth,
    num_heads=num_heads,
    activation=activation,
    init=init,
    norm=norm,
    first_norm=norm,
    **options,
  )
  head_dim = sizes.head_dim(dim, num_heads)
  attention = GlobalAttention(num_heads, head_dim, dropout=dropout, dtype=dtype, kernel_init=init, out_init=init)
  mlp = MLP(pair.mlp_dim or 4 * dim, activation, dtype=dtype, kernel_init=init, down_init=init)
  blocks = tuple(
    PostNormBlock(attention.copy(mask=rule), mlp, norm, dropout=dropout) for rule in windows(window, depth)
  )
  encoder = Tower(
    towers["encoder"].positions,
    stack(blocks if len(blocks) > 1 else blocks[0], depth, **pair.stacking),
    first_norm=norm.copy(),
    dropout=dropout,
  )
  dense = functools.partial(Dense, dtype=dtype, kernel_init=init)
  return LED(
    embed=Embed(vocab_size, dim, dtype=dtype, embedding_init=init),
    encoder=encoder,
    decoder=towers["decoder"],
    logits=TiedLogits(fixed_bias=logits_bias) if head == "lm" else None,
    **token_heads(head, None, dense),
    pad=pad,
    start_token=start_token,
    eos=eos,
  )


# https://huggingface.co/allenai/led-base-16384, https://huggingface.co/allenai/led-large-16384.
_SHARED = dict(vocab_size=50265, source_length=16384, max_length=1024)
VARIANTS = {
  "base-16384": dict(dim=768, depth=6, num_heads=12, window=1024, **_SHARED),
  "large-16384": dict(dim=1024, depth=12, num_heads=16, window=1024, **_SHARED),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "base-16384": 161_844_480,
  "large-16384": 459_801_600,
}
