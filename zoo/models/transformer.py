"""The Transformer: Attention Is All You Need (Vaswani et al., 2017).

https://arxiv.org/abs/1706.03762. Code: https://github.com/tensorflow/tensor2tensor.
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
  "title": "Attention Is All You Need",
  "authors": "Vaswani et al.",
  "year": 2017,
  "url": "https://arxiv.org/abs/1706.03762",
}


def transformer(
  *,
  vocab_size: int,
  dim: int,
  depth: int,
  num_heads: int,
  max_length: int = 1024,
  activation: str = "relu",
  pad: int | None = None,
  start_token: int = 0,
  **options: Unpack[PairOptions],
) -> EncoderDecoder:
  """A Transformer of these sizes; mlp_dim defaults to 4 * dim, the decoder's sizes default to the encoder's.

  max_length: of either text.
  pad: the padding token; its embedding is not trained. start_token: the first decoder token.
  """
  sizes.positive(vocab_size=vocab_size, max_length=max_length, dim=dim)
  dtype = resolve(PairOptions, options).dtype
  towers = encoder_decoder_towers(
    PostNormBlock,
    [Sinusoidal(dim, max_length=max_length) for _ in range(2)],
    dim=dim,
    depth=depth,
    num_heads=num_heads,
    activation=activation,
    init=initial.xavier_uniform(),
    norm=norms.layer_norm(1e-6, dtype),
    **options,
  )
  return EncoderDecoder(
    # Section 3.4: one matrix for both embeddings and the output; "in the embedding layers, we multiply those weights by
    # sqrt(d_model)".
    embed=Embed(vocab_size, dim, dtype=dtype, embedding_init=initial.normal(dim**-0.5)),
    **towers,
    logits=TiedLogits(),
    embed_scale=dim**0.5,
    pad=pad,
    start_token=start_token,
  )


# Table 3 of the paper, which rounds to 65 and 213 million; section 5.1: "a shared source-target vocabulary of about
# 37000 tokens". The projections of attention have biases here, as in torch.nn and Marian.
VARIANTS = {
  "base": dict(vocab_size=37000, dim=512, depth=6, num_heads=8, mlp_dim=2048),
  "big": dict(vocab_size=37000, dim=1024, depth=6, num_heads=16, mlp_dim=4096),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "base": 63_082_496,
  "big": 214_245_376,
}
