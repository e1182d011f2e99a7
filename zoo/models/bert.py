"""BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding (Devlin et al., 2018).

https://arxiv.org/abs/1810.04805. Code: https://github.com/google-research/bert.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, norms, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PostNormBlock
from zoo.layers.embeddings import pick, unembed
from zoo.layers.mlp import MLP, activation
from zoo.layers.positions import Learned
from zoo.layers.stack import stack
from zoo.models.model import Model

PAPER = {
  "title": "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
  "authors": "Devlin et al.",
  "year": 2018,
  "url": "https://arxiv.org/abs/1810.04805",
}
HEADS = {"pretraining": ("mlm", "nsp"), "mlm": ("mlm",), "classify": ("logits",), None: ()}


class BERT(Model):
  """Bidirectional encoder with a pooled first token and the heads that are not None."""

  embed: nn.Module
  segments: nn.Module
  positions: nn.Module
  norm: nn.Module
  stack: nn.Module
  pooler: nn.Module | None = None
  mlm: nn.Module | None = None
  nsp: nn.Module | None = None
  classify: nn.Module | None = None
  dropout: float = 0.0

  @nn.compact
  def __call__(self, tokens, *, segments=None, valid=None, predict=None, train=False):
    """Hidden states, and what the heads make of them.

    Args:
      tokens: int32 [batch, length]
      segments: int32 [batch, length], 0 = first sentence, 1 = second; all 0 if None.
      valid: bool [batch, length], True = a real token; nobody attends to the others.
      predict: int32 [batch, k], indices into length at which masked-token logits are wanted; everywhere if None.

    Returns:
      dict of "hidden" [batch, length, dim] and, where the model has the head:
        "pooled" [batch, dim], "mlm" [batch, length or k, vocab_size], "nsp" [batch, 2] (class 0 = is next),
        "logits" [batch, num_classes]. All logits are float32.
    """

    def drop(y):
      return nn.Dropout(self.dropout)(y, deterministic=not train)

    sizes.tokens_fit(tokens)
    x = self.embed(tokens) + self.positions(tokens.shape[1])
    x += self.segments(jnp.zeros_like(tokens[:1]) if segments is None else segments)
    x = self.stack(drop(self.norm(x)), valid=valid, train=train)
    out = {"hidden": x}
    if self.mlm is not None:
      y = x if predict is None else pick(x, predict)
      out["mlm"] = self.mlm(y, self.embed)
    if self.pooler is not None:
      out["pooled"] = nn.tanh(self.pooler(x[:, 0]))
    if self.nsp is not None:
      out["nsp"] = self.nsp(out["pooled"]).astype(jnp.float32)
    if self.classify is not None:
      out["logits"] = self.classify(drop(out["pooled"])).astype(jnp.float32)
    return out

  @property
  def max_length(self):
    return self.positions.max_length

  @nn.nowrap
  def example(self, batch_size=1):
    return (jnp.zeros((batch_size, min(self.max_length, 8)), jnp.int32),)


class MaskedTokenHead(nn.Module):
  """Logits over the vocabulary by the embedding itself, after one more layer: `get_masked_lm_output` of their code."""

  dense: nn.Module
  norm: nn.Module

  @nn.compact
  def __call__(self, x, embed):
    """[batch, k, dim] -> float32 [batch, k, vocab_size]"""
    logits = unembed(embed, self.norm(activation("gelu")(self.dense(x))))
    return logits + self.param("bias", initial.zeros, (embed.num_embeddings,))[None, None]


def bert(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int | None = None,
  head: str | None = "pretraining",
  num_classes: int | None = None,
  num_segments: int = 2,
  dropout: float = 0.0,
  drop_path: float = 0.0,
  dtype: str | None = None,
  scan: bool | None = None,
  remat: str | None = None,
) -> BERT:
  """A BERT of these sizes; mlp_dim is 4 * dim if None.

  head: "pretraining" (masked tokens, next sentence), "mlm" (masked tokens, no pooler), "classify" (num_classes), None.
  """
  head_dim = sizes.head_dim(dim, num_heads)
  sizes.positive(vocab_size=vocab_size, max_length=max_length, depth=depth, mlp_dim=mlp_dim, num_segments=num_segments)
  sizes.positive(num_classes=num_classes)
  sizes.rate(dropout=dropout)
  if head not in HEADS:
    raise ValueError(f"head is {head!r}. It may be: {', '.join(map(str, HEADS))}.")
  if (head == "classify") != (num_classes is not None):
    raise ValueError(f"head is {head!r} and num_classes {num_classes}. head='classify' and num_classes go together.")
  dtype = sizes.compute_dtype(dtype)
  init = initial.truncated_normal(0.02)
  norm = norms.layer_norm(1e-12, dtype)
  dense = functools.partial(nn.Dense, dtype=dtype, kernel_init=init)
  attention = Attention(num_heads, head_dim, dropout=dropout, dtype=dtype, kernel_init=init, out_init=init)
  mlp = MLP(mlp_dim or 4 * dim, "gelu", dtype=dtype, kernel_init=init, down_init=init)
  block = PostNormBlock(attention, mlp, norm, dropout=dropout)
  return BERT(
    embed=nn.Embed(vocab_size, dim, dtype=dtype, embedding_init=init),
    segments=nn.Embed(num_segments, dim, dtype=dtype, embedding_init=init),
    positions=Learned(max_length, dim, dtype=dtype, embedding_init=init),
    norm=norm.copy(),
    stack=stack(block, depth, scan=scan, remat=remat, drop_path=drop_path),
    pooler=None if head == "mlm" else dense(dim),
    mlm=MaskedTokenHead(dense(dim), norm.copy()) if "mlm" in HEADS[head] else None,
    nsp=dense(2) if "nsp" in HEADS[head] else None,
    classify=dense(num_classes) if head == "classify" else None,
    dropout=dropout,
  )


VARIANTS = {
  "base": dict(vocab_size=30522, max_length=512, dim=768, depth=12, num_heads=12),
  "large": dict(vocab_size=30522, max_length=512, dim=1024, depth=24, num_heads=16),
}
