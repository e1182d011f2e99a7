"""GPT-2: Language Models are Unsupervised Multitask Learners (Radford et al., 2019). Code: https://github.com/openai/gpt-2."""

from typing import Unpack

from zoo.layers import initial, masks, norms, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PreNormBlock
from zoo.layers.compute import Compute, computing
from zoo.layers.embeddings import Embed
from zoo.layers.mlp import MLP
from zoo.layers.positions import Learned
from zoo.layers.stack import stack
from zoo.models.decoder import HEADS, Decoder, with_head

PAPER = {
  "title": "Language Models are Unsupervised Multitask Learners",
  "authors": "Radford et al.",
  "year": 2019,
  "url": "https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf",
}


def gpt(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int | None = None,
  activation: str = "gelu_tanh",
  epsilon: float = 1e-5,
  head: str | None = "lm",
  num_classes: int | None = None,
  pad: int | None = None,
  **options: Unpack[Compute],
) -> Decoder:
  """A GPT-2 of these sizes; mlp_dim defaults to 4 * dim; epsilon: of the norms.

  head: "lm" (the next token), "classify" (num_classes, read at the last token that is not `pad`), "classify_tokens"
    (num_classes each), "question_answering", None (hidden states).
  """
  dropout, dtype, stacking = computing(options)
  head_dim = sizes.head_dim(dim, num_heads)
  sizes.positive(vocab_size=vocab_size, max_length=max_length, depth=depth, mlp_dim=mlp_dim)
  sizes.head_fits(head, HEADS, num_classes)
  # Section 2.3: "we scale the weights of residual layers at initialization by a factor of 1/sqrt(N)".
  normal, residual = initial.normal(0.02), initial.normal(0.02 / (2 * depth) ** 0.5)
  norm = norms.layer_norm(epsilon, dtype)
  attention = Attention(
    num_heads,
    head_dim,
    mask=masks.causal,
    dropout=dropout,
    dtype=dtype,
    kernel_init=normal,
    out_init=residual,
  )
  mlp = MLP(mlp_dim or 4 * dim, activation, dtype=dtype, kernel_init=normal, down_init=residual)
  block = PreNormBlock(attention, mlp, norm, dropout=dropout)
  return with_head(
    head,
    True,
    num_classes,
    embed=Embed(vocab_size, dim, dtype=dtype, embedding_init=normal),
    positions=Learned(max_length, dim, embedding_init=initial.normal(0.01)),
    stack=stack(block, depth, **stacking),
    norm=norm.copy(),
    max_length=max_length,
    pad=pad,
    dropout=dropout,
  )


VARIANTS = {
  "gpt2": dict(vocab_size=50257, max_length=1024, dim=768, depth=12, num_heads=12),
  "gpt2-medium": dict(vocab_size=50257, max_length=1024, dim=1024, depth=24, num_heads=16),
  "gpt2-large": dict(vocab_size=50257, max_length=1024, dim=1280, depth=36, num_heads=20),
  "gpt2-xl": dict(vocab_size=50257, max_length=1024, dim=1600, depth=48, num_heads=25),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "gpt2": 124_439_808,
  "gpt2-medium": 354_823_168,
  "gpt2-large": 774_030_080,
  "gpt2-xl": 1_557_611_200,
}
