"""Marian: Fast Neural Machine Translation in C++ (Junczys-Dowmunt et al., 2018).

https://arxiv.org/abs/1804.00344. Models of many languages: https://github.com/Helsinki-NLP/Opus-MT. The Transformer
with swish, sinusoidal positions with all sines before the cosines, and an output bias.
"""

from typing import Unpack

from zoo.layers import initial, norms, sizes
from zoo.layers.blocks import PostNormBlock
from zoo.layers.compute import resolve
from zoo.layers.embeddings import Embed
from zoo.layers.heads import TiedLogits
from zoo.layers.positions import Sinusoidal
from zoo.layers.towers import PairOptions, encoder_decoder_towers
from zoo.models.encoder_decoder import EncoderDecoder

PAPER = {
  "title": "Marian: Fast Neural Machine Translation in C++",
  "authors": "Junczys-Dowmunt et al.",
  "year": 2018,
  "url": "https://arxiv.org/abs/1804.00344",
}
HEADS = ("lm", None)


def marian(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  decoder_vocab_size: int | None = None,
  head: str | None = "lm",
  activation: str = "silu",
  scaled_embedding: bool = True,
  logits_bias: bool = False,
  pad: int | None = None,
  start_token: int = 0,
  **options: Unpack[PairOptions],
) -> EncoderDecoder:
  """A Marian of these sizes; mlp_dim defaults to 4 * dim, the decoder's sizes default to the encoder's.

  decoder_vocab_size: of a decoder with its own embedding; None: both share one.
  head: "lm" (the next token), None (hidden states).
  scaled_embedding: whether token embeddings are multiplied by sqrt(dim).
  logits_bias: whether logits have a bias, which is not trained.
  pad: the padding token; its embedding is not trained. start_token: the first decoder token.
  """
  sizes.positive(vocab_size=vocab_size, max_length=max_length, dim=dim, decoder_vocab_size=decoder_vocab_size)
  sizes.head_fits(head, HEADS, None)
  dtype = resolve(PairOptions, options).dtype
  init = initial.normal(0.02)
  towers = encoder_decoder_towers(
    PostNormBlock,
    [Sinusoidal(dim, interleaved=False, max_length=max_length) for _ in range(2)],
    dim=dim,
    depth=depth,
    num_heads=num_heads,
    activation=activation,
    init=init,
    norm=norms.layer_norm(1e-5, dtype),
    **options,
  )
  embed = Embed(vocab_size, dim, dtype=dtype, embedding_init=init)
  return EncoderDecoder(
    embed=embed,
    decoder_embed=None if decoder_vocab_size is None else embed.copy(num_embeddings=decoder_vocab_size),
    **towers,
    logits=TiedLogits(fixed_bias=logits_bias) if head == "lm" else None,
    embed_scale=dim**0.5 if scaled_embedding else 1.0,
    pad=pad,
    start_token=start_token,
  )


# https://huggingface.co/Helsinki-NLP/opus-mt-en-de, without its output bias.
VARIANTS = {
  "opus-mt-en-de": dict(
    vocab_size=58101, max_length=512, dim=512, depth=6, num_heads=8, mlp_dim=2048, pad=58100, start_token=58100
  ),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "opus-mt-en-de": 73_886_208,
}
