"""ModernBERT: Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder (Warner et al., 2024).

https://arxiv.org/abs/2412.13663. Code: https://github.com/AnswerDotAI/ModernBERT.
"""

import functools
from typing import Unpack

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, masks, norms, rope_scaling, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PreNormBlock
from zoo.layers.compute import Compute, computing
from zoo.layers.dense import Dense
from zoo.layers.embeddings import PaddedEmbed, unembed
from zoo.layers.heads import TiedLogits, TokenHeads, refuse_packed, token_heads
from zoo.layers.mixed_precision import pick
from zoo.layers.mlp import GatedMLP
from zoo.layers.mlp import activation as activation_named
from zoo.layers.positions import rotary
from zoo.layers.sequence import SequenceInfo
from zoo.layers.stack import stack
from zoo.models.model import PredictsMaskedTokens

PAPER = {
  "title": "Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder",
  "authors": "Warner et al.",
  "year": 2024,
  "url": "https://arxiv.org/abs/2412.13663",
}
HEADS = ("mlm", "classify", "multiple_choice", "classify_tokens", "question_answering", None)
POOLINGS = ("cls", "mean")


class ModernBERT(TokenHeads, PredictsMaskedTokens):
  """Bidirectional encoder of alternating global and local attention layers, and the heads that are not None.

  Args:
    embed, first_norm: token embedding and its norm.
    first: the first layer, which has no attention norm; `stack` the others, None if there are none; `norm` after them.
    summary: the layer before every head.
    mlm: the head that predicts masked tokens; others as of `TokenHeads`.
    pooling: the state of a sequence: "cls", its first token's, or "mean".
    max_length: maximum sequence length.
    dropout: rate of dropout before the first layer, and before a head's last.
  """

  embed: nn.Module
  first_norm: nn.Module
  first: nn.Module
  stack: nn.Module | None
  norm: nn.Module
  summary: nn.Module | None = None
  pooling: str = "cls"
  max_length: int = 0
  dropout: float = 0.0

  @nn.compact
  def __call__(self, tokens, *, segments=None, valid=None, segment_ids=None, predict=None, train=False):
    """Hidden states and the outputs of the heads.

    Args:
      tokens: int32 [batch, length]; of the head "multiple_choice" [batch, choices, length], and so is valid.
      segments: ignored; accepted because data of pairs have it. The separator token distinguishes the two.
      valid: bool [batch, length], True = a real token; others are masked.
      segment_ids: int32 [batch, length] of packed sequences; tokens attend within their segment only.
        None: a row is one sequence. Not with heads that make one summary of a row.
      predict: int32 [batch, k], indices into length at which masked-token logits are wanted; everywhere if None.

    Returns:
      dict of "hidden" [batch, length, dim] (normed) and, where the model has the head:
        "mlm" [batch, length or k, vocab_size], "logits" [batch, num_classes], of tokens [batch, length, num_classes],
        of choices [batch, choices], "start", "end" of an answer [batch, length]. All logits are float32.
    """

    def drop(y):
      return nn.Dropout(self.dropout)(y, deterministic=not train)

    shape = tokens.shape
    tokens, valid = self.rows(tokens, valid)
    sizes.tokens_fit(tokens)
    refuse_packed(segment_ids, self.summarizes)
    info = SequenceInfo(valid, None, segment_ids)
    x = self.first(drop(self.first_norm(self.embed(tokens))), info=info, train=train)
    x = self.norm(x if self.stack is None else self.stack(x, info=info, train=train))
    y = self.pooled(x, valid) if self.summarizes else x
    outputs = self.head_outputs(y, shape[:-1], before=lambda y: drop(self.summed(y)))
    return {"hidden": x, **self.masked_tokens(x, predict), **outputs}

  def to_logits(self, x):
    return super().to_logits(self.summed(x))

  def summed(self, x):
    """The input of the heads: [..., dim] -> [..., dim]"""
    return x if self.summary is None else self.summary(x)

  def pooled(self, x, valid):
    """Pools a sequence: [batch, length, dim], bool [batch, length] or None -> [batch, dim]"""
    if self.pooling == "mean":
      if valid is None:
        return x.mean(axis=1)
      weight = valid.astype(x.dtype)
      return (x * weight[:, :, None]).sum(axis=1) / weight.sum(axis=1)[:, None]
    # Multiple choice pools the first real token, classification the first token: so does the reference.
    first = None if self.choose is None or valid is None else jnp.argmax(valid, axis=1)[:, None]
    return x[:, 0] if first is None else pick(x, first)[:, 0]

  @nn.nowrap
  def example(self, batch_size=1):
    shape = (batch_size, min(self.max_length, 8)) if self.choose is None else (batch_size, 2, min(self.max_length, 8))
    return (jnp.zeros(shape, jnp.int32),)


class FirstBlock(PreNormBlock):
  """A PreNormBlock without norm before its attention, as its input comes from the embedding's norm."""

  @nn.nowrap
  def residual(self, name, x, sublayer, finish):
    return x + finish(name, sublayer(x)) if name == "attention" else super().residual(name, x, sublayer, finish)


class Summary(nn.Module):
  """norm(activation(dense(x))), the layer before every head."""

  dense: nn.Module
  norm: nn.Module
  activation: str = "gelu"

  @nn.compact
  def __call__(self, x):
    """[..., dim] -> [..., dim]"""
    return self.norm(activation_named(self.activation)(self.dense(x)))


class BiasedLogits(nn.Module):
  """Tied output layer with bias: x @ embedding.T + bias."""

  @nn.compact
  def __call__(self, x, embed):
    """[batch, k, dim] -> float32 [batch, k, vocab_size]"""
    return unembed(embed, x) + self.param("bias", initial.zeros, (embed.num_embeddings,))[None, None]


def modernbert(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int,
  head: str | None = "mlm",
  num_classes: int | None = None,
  pooling: str = "cls",
  window: int = 128,
  pattern: list | None = None,
  theta: float = 160_000.0,
  rope: dict | None = None,
  local_theta: float = 10_000.0,
  local_rope: dict | None = None,
  activation: str = "gelu",
  head_activation: str = "gelu",
  epsilon: float = 1e-5,
  norm_bias: bool = False,
  attention_bias: bool = False,
  mlp_bias: bool = False,
  mlm_bias: bool = True,
  head_bias: bool = False,
  pad: int | None = None,
  **options: Unpack[Compute],
) -> ModernBERT:
  """A ModernBERT of these sizes.

  head: "mlm" (masked tokens), "classify" (num_classes), "classify_tokens" (num_classes each), "question_answering"
    (start and end of an answer), "multiple_choice", None. head_activation: of the layer before every head.
  pooling: the state that is classified: "cls", the first token's, or "mean".
  window: in local layers a token attends to itself and window // 2 tokens on each side.
  pattern: "global" and "local" layers alternate in this order from the first layer on; if None one of three is
    global.
  theta, rope: of the rotary positions of global layers, as in `zoo.models.llama`; local_theta, local_rope: of the rest.
  norm_bias, attention_bias, mlp_bias, mlm_bias, head_bias: which parts have biases; the last is of the heads' layer.
  pad: the padding token; its embedding is not trained.
  epsilon: of the norms.
  """
  dropout, dtype, stacking = computing(options)
  head_dim = sizes.head_dim(dim, num_heads)
  sizes.positive(vocab_size=vocab_size, max_length=max_length, depth=depth, mlp_dim=mlp_dim, window=window)
  sizes.head_fits(head, HEADS, num_classes)
  if pooling not in POOLINGS:
    raise ValueError(f"pooling is {pooling!r}. It may be: {', '.join(POOLINGS)}.")
  pattern = ["global", "local", "local"] if pattern is None else pattern
  if not pattern or any(kind not in ("local", "global") for kind in pattern):
    raise ValueError(f"pattern is {pattern!r}. It must be a list of 'local' and 'global'.")
  # Appendix A.2 of the paper: as Megatron, cut at two standard deviations.
  init, out_init = initial.truncated_normal(0.02), initial.truncated_normal(0.02 * (2 * depth) ** -0.5)
  norm = norms.layer_norm(epsilon, dtype).copy(use_bias=norm_bias)
  dense = functools.partial(Dense, dtype=dtype, kernel_init=initial.truncated_normal(dim**-0.5))
  attention = Attention(
    num_heads, head_dim, use_bias=attention_bias, dropout=dropout, dtype=dtype, kernel_init=init, out_init=out_init
  )
  kinds = {
    "global": attention.copy(rotary=rotary(theta, rope_scaling.scaling(rope))),
    "local": attention.copy(
      rotary=rotary(local_theta, rope_scaling.scaling(local_rope)), mask=masks.window(window // 2)
    ),
  }
  mlp = GatedMLP(mlp_dim, activation, use_bias=mlp_bias, dtype=dtype, kernel_init=init, down_init=out_init)
  first = FirstBlock(kinds[pattern[0]], mlp, norm, dropout=dropout)
  # The cycles begin at the second layer.
  others = tuple(PreNormBlock(kinds[kind], mlp, norm, dropout=dropout) for kind in [*pattern[1:], pattern[0]])
  return ModernBERT(
    embed=PaddedEmbed(vocab_size, dim, pad=pad, dtype=dtype, embedding_init=init),
    first_norm=norm.copy(),
    first=stack(first, 1, **{**stacking, "scan": False}),
    stack=stack(others, depth - 1, **stacking) if depth > 1 else None,
    norm=norm.copy(),
    summary=None
    if head is None
    else Summary(Dense(dim, use_bias=head_bias, dtype=dtype, kernel_init=out_init), norm.copy(), head_activation),
    mlm=None if head != "mlm" else BiasedLogits() if mlm_bias else TiedLogits(),
    **token_heads(head, num_classes, dense),
    pooling=pooling,
    max_length=max_length,
    dropout=dropout,
  )


# Table 4 of the paper; the vocabulary of the releases is padded to a multiple of 64.
_SHARED = dict(vocab_size=50368, max_length=8192, pooling="mean", pad=50283)
VARIANTS = {
  "base": dict(dim=768, depth=22, num_heads=12, mlp_dim=1152, **_SHARED),
  "large": dict(dim=1024, depth=28, num_heads=16, mlp_dim=2624, **_SHARED),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "base": 149_655_232,
  "large": 395_881_664,
}
