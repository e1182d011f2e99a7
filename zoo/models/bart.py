"""BART: Denoising Sequence-to-Sequence Pre-training for Natural Language Generation (Lewis et al., 2019).

https://arxiv.org/abs/1910.13461. Code: https://github.com/facebookresearch/fairseq/tree/main/examples/bart.
"""

import functools
from typing import Unpack

from zoo.layers import initial, norms, sizes
from zoo.layers.blocks import PostNormBlock
from zoo.layers.compute import computing
from zoo.layers.dense import Dense
from zoo.layers.embeddings import Embed
from zoo.layers.heads import TanhHead, TiedLogits, token_heads
from zoo.layers.positions import Learned
from zoo.layers.towers import PairOptions, encoder_decoder_towers
from zoo.models.encoder_decoder import EncoderDecoder

PAPER = {
  "title": "BART: Denoising Sequence-to-Sequence Pre-training for Natural Language Generation, Translation, and "
  "Comprehension",
  "authors": "Lewis et al.",
  "year": 2019,
  "url": "https://arxiv.org/abs/1910.13461",
}
HEADS = ("lm", "classify", "question_answering", None)


def bart(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  head: str | None = "lm",
  num_classes: int | None = None,
  activation: str = "gelu",
  scaled_embedding: bool = False,
  logits_bias: bool = False,
  pad: int | None = 1,
  start_token: int = 2,
  eos: int = 2,
  **options: Unpack[PairOptions],
) -> EncoderDecoder:
  """A BART of these sizes; mlp_dim defaults to 4 * dim, the decoder's sizes default to the encoder's.

  head: "lm" (the next token), "classify" (num_classes), "question_answering" (start and end of an answer), None
  (hidden states).
  scaled_embedding: whether token embeddings are multiplied by sqrt(dim).
  logits_bias: whether logits have a bias, which is not trained.
  pad: the padding token; its embedding is not trained. start_token: the first decoder token. eos: where
  "classify" reads.
  """
  sizes.positive(vocab_size=vocab_size, max_length=max_length, dim=dim)
  sizes.head_fits(head, HEADS, num_classes)
  dropout, dtype = computing(options, PairOptions)[:2]
  init = initial.normal(0.02)
  norm = norms.layer_norm(1e-5, dtype)
  towers = encoder_decoder_towers(
    PostNormBlock,
    # In fairseq positions are counted from 2: rows 0 and 1 were meant for padding.
    [Learned(max_length, dim, embedding_init=init, offset=2) for _ in range(2)],
    dim=dim,
    depth=depth,
    num_heads=num_heads,
    activation=activation,
    init=init,
    norm=norm,
    first_norm=norm,
    **options,
  )
  dense = functools.partial(Dense, dtype=dtype, kernel_init=init)
  return EncoderDecoder(
    embed=Embed(vocab_size, dim, dtype=dtype, embedding_init=init),
    **towers,
    logits=TiedLogits(fixed_bias=logits_bias) if head == "lm" else None,
    **token_heads(head, num_classes, dense, lambda classes: TanhHead(dense(dim), dense(classes), dropout)),
    embed_scale=dim**0.5 if scaled_embedding else 1.0,
    pad=pad,
    start_token=start_token,
    eos=eos,
  )


# Section 3.1 of the paper; https://huggingface.co/facebook/bart-base, https://huggingface.co/facebook/bart-large.
VARIANTS = {
  "base": dict(vocab_size=50265, max_length=1024, dim=768, depth=6, num_heads=12),
  "large": dict(vocab_size=50265, max_length=1024, dim=1024, depth=12, num_heads=16),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "base": 139_420_416,
  "large": 406_291_456,
}
