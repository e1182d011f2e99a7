"""Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context (Dai et al., 2019).

Code: https://github.com/kimiyoung/transformer-xl.
"""

from collections.abc import Sequence
from typing import Any, Unpack

import flax.linen as nn

from zoo.layers import initial, masks, norms, sizes
from zoo.layers.adaptive import AdaptiveEmbed, AdaptiveLogits
from zoo.layers.blocks import PostNormBlock
from zoo.layers.compute import Compute, computing
from zoo.layers.mixed_precision import pick
from zoo.layers.mlp import MLP
from zoo.layers.relative import MEMORY, RelativeAttention
from zoo.layers.stack import stack
from zoo.models.decoder import Decoder, LanguageModel, with_head

PAPER = {
  "title": "Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context",
  "authors": "Dai et al.",
  "year": 2019,
  "url": "https://arxiv.org/abs/1901.02860",
}
HEADS = ("lm", "classify", None)


class FinalDropout(Decoder):
  """A decoder whose last hidden states have dropout."""

  def hidden(self, tokens, info, *, predict=None, train=False):
    """Hidden states, see `Decoder`."""
    x = super().hidden(tokens, info, train=train)
    x = x if predict is None else pick(x, predict)
    return nn.Dropout(self.dropout)(x, deterministic=not train)


class MemoryLanguageModel(FinalDropout, LanguageModel, kw_only=True):
  """Language model with a memory of the previous segment; its logits are log-probabilities."""

  @property
  def carries(self):
    return {MEMORY: "rows"}


def transformer_xl(
  *,
  vocab_size: int,
  dim: int,
  depth: int,
  num_heads: int,
  head_dim: int | None = None,
  mlp_dim: int | None = None,
  memory_length: int = 0,
  same_length: bool = False,
  clamp: int | None = None,
  cutoffs: Sequence[int] = (),
  embed_dim: int | None = None,
  narrowing: int = 1,
  own_projections: Sequence[bool] = (),
  attention_dropout: float = 0.0,
  head: str | None = "lm",
  num_classes: int | None = None,
  pad: int | None = None,
  epsilon: float = 1e-5,
  **options: Unpack[Compute],
) -> Decoder:
  """A Transformer-XL of these sizes.

  head_dim: of the attention; dim / num_heads if None. mlp_dim: 4 * dim if None.
  memory_length: number of tokens before a segment that its tokens attend to, besides earlier ones of the segment.
  same_length: whether each token attends to itself and memory_length - 1 tokens before it, no more.
  clamp: maximum distance, to which larger ones are clamped; None: unlimited.
  cutoffs: of the token clusters, increasing: [20000, 40000] are the 20,000 most frequent, 20,000 others and the rest.
  embed_dim: width of the first cluster's embeddings; dim if None.
  narrowing: factor by which each further cluster's embeddings are narrower than the previous one's.
  own_projections: whether each cluster's output projection is separate from its embedding's; none if empty.
  attention_dropout: rate at which attention weights are dropped.
  head: "lm" (the next token), "classify" (num_classes, at the last token that is not `pad`), None (hidden states).
  """
  dropout, dtype, stacking = computing(options)
  head_dim = sizes.head_dim(dim, num_heads) if head_dim is None else head_dim
  sizes.positive(vocab_size=vocab_size, dim=dim, depth=depth, num_heads=num_heads, head_dim=head_dim, mlp_dim=mlp_dim)
  sizes.even(dim=dim)
  sizes.positive(clamp=clamp, embed_dim=embed_dim, narrowing=narrowing)
  sizes.rate(attention_dropout=attention_dropout)
  sizes.head_fits(head, HEADS, num_classes)
  if memory_length < 0 or same_length and memory_length < 1:
    raise ValueError(f"memory_length is {memory_length}. It must be at least {int(same_length)}.")
  clusters_fit(vocab_size, cutoffs, embed_dim or dim, narrowing, own_projections)
  init = initial.normal(0.02)
  attention = RelativeAttention(
    num_heads,
    head_dim,
    mask=masks.both(masks.causal, masks.window(memory_length - 1)) if same_length else masks.causal,
    memory_length=memory_length,
    clamp=clamp,
    use_bias=False,
    dropout=attention_dropout,
    position_dropout=dropout,
    dtype=dtype,
    kernel_init=init,
    out_init=init,
  )
  mlp = MLP(mlp_dim or 4 * dim, "relu", dropout=dropout, dtype=dtype, kernel_init=init, down_init=init)
  embed = AdaptiveEmbed(
    vocab_size, dim, tuple(cutoffs), embed_dim, narrowing, dtype=dtype, embedding_init=init
  )  # fmt: skip
  parts: dict[str, Any] = dict(
    embed=embed,
    stack=stack(PostNormBlock(attention, mlp, norms.layer_norm(epsilon, dtype), dropout=dropout), depth, **stacking),
    max_length=None,
    pad=pad,
    dropout=dropout,
  )
  if head == "lm":
    return MemoryLanguageModel(logits=AdaptiveLogits(tuple(own_projections)), **parts)
  return with_head(head, True, num_classes, decoder=FinalDropout, **parts)


def clusters_fit(vocab_size, cutoffs, embed_dim, narrowing, own_projections):
  """ValueError for empty clusters, or embeddings of width 0."""
  bounds = [0, *cutoffs, vocab_size]
  if any(end <= first for first, end in zip(bounds, bounds[1:])):
    raise ValueError(f"cutoffs are {list(cutoffs)} of {vocab_size} tokens. They must rise, between them.")
  if embed_dim // narrowing ** len(cutoffs) < 1:
    raise ValueError(
      f"embed_dim is {embed_dim} and narrowing {narrowing}: no dimension is left for the embeddings of cluster "
      f"{len(cutoffs) + 1}. Lower narrowing, or raise embed_dim."
    )
  if own_projections and len(own_projections) != len(bounds) - 1:
    raise ValueError(
      f"own_projections has {len(own_projections)} entries for {len(bounds) - 1} clusters. Give one for each, or none."
    )


_WT103 = dict(vocab_size=267735, cutoffs=[20000, 40000, 200000])
# Of the paper's released models: https://github.com/kimiyoung/transformer-xl, pytorch/*.sh and tf/scripts.
VARIANTS = {
  "transfo-xl-wt103": dict(
    **_WT103, dim=1024, depth=18, num_heads=16, mlp_dim=4096, narrowing=4, memory_length=1600, same_length=True,
    clamp=1000, own_projections=[True, False, False, False],
  ),
  "wt103-base": dict(**_WT103, dim=410, depth=16, num_heads=10, mlp_dim=2100, memory_length=150),
  "enwik8-base": dict(vocab_size=204, dim=512, depth=12, num_heads=8, mlp_dim=2048, memory_length=512),
  "enwik8-large": dict(vocab_size=204, dim=1024, depth=24, num_heads=8, mlp_dim=3072, memory_length=768),
}  # fmt: skip
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "transfo-xl-wt103": 285_205_322,
  "wt103-base": 151_119_838,
  "enwik8-base": 41_066_700,
  "enwik8-large": 277_278_924,
}
