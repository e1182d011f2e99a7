"""Hierarchical Transformers for Long Document Classification (Pappagari et al., 2019).

https://arxiv.org/abs/1910.10781, where it is called ToBERT. An encoder reads the chunks of a document one by one,
another one their vectors: attention within chunks and between them costs length * chunk + chunks**2, not length**2.
"""

from typing import Unpack

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, norms, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PreNormBlock
from zoo.layers.compute import Compute, computing
from zoo.layers.dense import Dense
from zoo.layers.embeddings import last
from zoo.layers.heads import TokenHeads
from zoo.layers.mlp import MLP
from zoo.layers.positions import Learned
from zoo.layers.sequence import SequenceInfo
from zoo.layers.stack import stack
from zoo.layers.towers import Tower
from zoo.models.model import Model

PAPER = {
  "title": "Hierarchical Transformers for Long Document Classification",
  "authors": "Pappagari et al.",
  "year": 2019,
  "url": "https://arxiv.org/abs/1910.10781",
}
HEADS = ("classify", "classify_chunks", None)
SUMMARIES = ("mean", "first", "last", "pooled")
# Heads that a chunk's encoder may have, none of which has anything to read here.
UNUSED = ("nsp", "classify", "choose", "classify_tokens", "answer")


class Hierarchical(TokenHeads, Model):
  """An encoder of tokens over the chunks of a document, and an encoder of chunks over their vectors.

  Args:
    encoder: a model of tokens; called with tokens, valid and train.
    document_encoder: a `Tower` over the vectors of chunks.
    project: a layer from the encoder's width to the document encoder's; None: they are equal.
    summary: the vector of a chunk: the "mean" of its real tokens' states, its "first" or its "last" one, or the
      encoder's output "pooled".

  The head `classify` reads the mean of the real chunks' states, `classify_tokens` the state of each chunk.
  """

  encoder: nn.Module
  document_encoder: nn.Module
  project: nn.Module | None = None
  summary: str = "mean"
  dropout: float = 0.0

  @nn.compact
  def __call__(self, tokens, *, valid=None, train=False):
    """States of the chunks, and what the head makes of them.

    Args:
      tokens: int32 [batch, chunks, length]
      valid: bool [batch, chunks, length], True = a real token; others are masked, and so are chunks without one.

    Returns:
      dict of "hidden" [batch, chunks, dim], "pooled" [batch, dim], the mean of those of real chunks and, where the
      model has a head, "logits" float32 [batch, num_classes], or of chunks [batch, chunks, num_classes].
    """
    if tokens.ndim != 3 or tokens.shape[1] > self.max_chunks:
      raise ValueError(
        f"tokens are {list(tokens.shape)}, the model needs [batch, chunks, length], at most {self.max_chunks} chunks. "
        "Cut documents into chunks, as the pipeline chunked_texts does, or raise max_chunks."
      )
    if valid is not None and valid.shape != tokens.shape:
      raise ValueError(f"valid is of shape {list(valid.shape)}, the tokens are {list(tokens.shape)}. Make them equal.")
    chunks = tokens.reshape(-1, tokens.shape[-1])
    real_tokens = None if valid is None else valid.reshape(chunks.shape)
    encode = getattr(self.encoder, "encode", self.encoder)  # Of an encoder-decoder only the encoder.
    x = self.summarized(encode(chunks, valid=real_tokens, train=train), real_tokens)
    x = x if self.project is None else self.project(x)
    real = None if valid is None else valid.any(axis=-1)
    x = self.document_encoder(x.reshape(*tokens.shape[:2], -1), info=SequenceInfo(real), train=train)
    pooled = mean(x, real)
    drop = nn.Dropout(self.dropout, deterministic=not train)
    return {"hidden": x, "pooled": pooled, **self.head_outputs(pooled if self.summarizes else x, before=drop)}

  def summarized(self, outputs, valid):
    """The encoder's outputs, and bool [rows, length] or None -> the vectors of chunks [rows, dim]"""
    outputs = outputs if isinstance(outputs, dict) else {"hidden": outputs}
    if self.summary == "pooled":
      if "pooled" not in outputs:
        raise ValueError(f"summary is 'pooled', and the encoder returns {', '.join(outputs)}. Choose another summary.")
      return outputs["pooled"]
    x = outputs["hidden"]
    if self.summary == "mean":
      return mean(x, valid)
    return last(x, valid) if self.summary == "last" else x[:, 0]

  @property
  def vocab_size(self):
    encoder = self.encoder
    return getattr(encoder, "source_vocab_size", None) or encoder.embed.num_embeddings

  @property
  def max_length(self):
    """Maximum tokens of a chunk; None: unlimited."""
    return getattr(self.encoder, "max_length", None)

  @property
  def max_chunks(self):
    return self.document_encoder.max_length

  @nn.nowrap
  def example(self, batch_size=1):
    return (jnp.zeros((batch_size, min(self.max_chunks, 2), min(self.max_length or 8, 8)), jnp.int32),)


def mean(x, valid):
  """Mean over real entries: [batch, length, dim], bool [batch, length] or None -> [batch, dim]; 0 if there is none."""
  weight = jnp.ones(x.shape[:2], x.dtype) if valid is None else valid.astype(x.dtype)
  return jnp.einsum("bld,bl->bd", x, weight) / jnp.maximum(weight.sum(axis=1), 1)[:, None]


def hierarchical(
  *,
  encoder: Model,
  max_chunks: int,
  depth: int,
  num_heads: int,
  dim: int | None = None,
  mlp_dim: int | None = None,
  summary: str = "mean",
  head: str | None = None,
  num_classes: int | None = None,
  activation: str = "gelu",
  epsilon: float = 1e-5,
  **options: Unpack[Compute],
) -> Hierarchical:
  """A hierarchical encoder of these sizes; mlp_dim is 4 * dim if None.

  encoder: of chunks, any family that reads tokens; a head of it that predicts tokens is left out. In `zoo.build` and
    in configs: {"family": ..., "variant": ..., **sizes}.
  max_chunks: of a document.
  depth, num_heads, dim, mlp_dim, activation, epsilon: of the encoder of chunks' vectors, a pre-norm Transformer with
    learned positions; dim is the encoder's if None.
  summary: the vector of a chunk, as in `Hierarchical`.
  head: "classify" (num_classes of a document), "classify_chunks" (num_classes of each chunk), None.
  """
  dropout, dtype, stacking = computing(options)
  sizes.positive(max_chunks=max_chunks, depth=depth, mlp_dim=mlp_dim)
  sizes.head_fits(head, HEADS, num_classes)
  if summary not in SUMMARIES:
    raise ValueError(f"summary is {summary!r}. It may be: {', '.join(SUMMARIES)}.")
  encoder, width = _headless(encoder)
  dim = width if dim is None else dim
  head_dim = sizes.head_dim(dim, num_heads)
  init = initial.truncated_normal(0.02)
  norm = norms.layer_norm(epsilon, dtype)
  attention = Attention(num_heads, head_dim, dropout=dropout, dtype=dtype, kernel_init=init, out_init=init)
  mlp = MLP(mlp_dim or 4 * dim, activation, dtype=dtype, kernel_init=init, down_init=init)
  block = PreNormBlock(attention, mlp, norm, dropout=dropout)
  positions = Learned(max_chunks, dim, embedding_init=init)
  classes = None if num_classes is None else Dense(num_classes, dtype=dtype, kernel_init=init)
  return Hierarchical(
    encoder=encoder,
    document_encoder=Tower(positions, stack(block, depth, **stacking), norm=norm.copy(), dropout=dropout),
    project=None if dim == width else Dense(dim, dtype=dtype, kernel_init=init),
    summary=summary,
    classify=classes if head == "classify" else None,
    classify_tokens=classes if head == "classify_chunks" else None,
    dropout=dropout,
  )


def _headless(encoder):
  """The encoder without a head that predicts tokens, and its width; ValueError for one that cannot read chunks."""
  encoder = encoder.trunk() or encoder
  what = f"encoder is a {encoder.spec.get('family', type(encoder).__name__)}"
  embed, example = getattr(encoder, "embed", None), encoder.example()[0]
  reads = getattr(example, "ndim", 0) == 2 and jnp.issubdtype(example.dtype, jnp.integer)
  if not reads or not hasattr(embed, "features") or encoder.carries:
    raise ValueError(f"{what}, which does not make states of the tokens of single texts. Choose another family.")
  heads = [name for name in UNUSED if getattr(encoder, name, None) is not None]
  if heads:
    raise ValueError(f"{what} with a head, {heads[0]}, which nothing reads here. Build it with head=None.")
  return encoder, embed.features


# Section 3: BERT over segments, and two layers of a Transformer over their vectors.
VARIANTS = {
  "bert-base": dict(
    encoder=dict(family="bert", variant="base", head=None), max_chunks=64, depth=2, num_heads=12, summary="pooled"
  )
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {"bert-base": 123_708_672}
