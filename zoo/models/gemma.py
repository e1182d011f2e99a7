"""Gemma: Open Models Based on Gemini Research and Technology (Gemma Team, 2024), with Gemma 2 and the text of Gemma 3.

https://arxiv.org/abs/2403.08295, https://arxiv.org/abs/2408.00118, https://arxiv.org/abs/2503.19786.
Code: https://github.com/google-deepmind/gemma.
"""

import functools
from typing import Any, Unpack

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.layers import initial, masks, rope_scaling, sizes
from zoo.layers.attention import Attention, by_pattern
from zoo.layers.blocks import PreNormBlock
from zoo.layers.compute import resolve
from zoo.layers.embeddings import PaddedEmbed
from zoo.layers.mlp import GatedMLP
from zoo.layers.positions import rotary
from zoo.layers.stack import stack
from zoo.models.decoder import HEADS, Decoder, DecoderOptions, LanguageModel, with_head
from zoo.models.llama import by_name, mask_pattern

PAPER = {
  "title": "Gemma: Open Models Based on Gemini Research and Technology",
  "authors": "Gemma Team",
  "year": 2024,
  "url": "https://arxiv.org/abs/2403.08295",
}
# Keyed by the prefix of a variant's name.
PAPERS = {
  "gemma-2-": {
    "title": "Gemma 2: Improving Open Language Models at a Practical Size",
    "authors": "Gemma Team",
    "year": 2024,
    "url": "https://arxiv.org/abs/2408.00118",
  },
  "gemma-3-": {
    "title": "Gemma 3 Technical Report",
    "authors": "Gemma Team",
    "year": 2025,
    "url": "https://arxiv.org/abs/2503.19786",
  },
}


class GemmaLM(LanguageModel):
  """Language model with soft-capped logits, between -cap and cap."""

  cap: float | None = None

  def to_logits(self, x):
    logits = super().to_logits(x)
    return logits if self.cap is None else soft_cap(self.cap, logits)


def soft_cap(cap, x):
  """cap * tanh(x / cap). https://arxiv.org/abs/2408.00118, section 2"""
  return cap * jnp.tanh(x / cap)


@functools.cache
def capped_attention(cap):
  """Attention with soft-capped logits, between -cap and cap."""
  return functools.partial(by_pattern, on_logits=functools.partial(soft_cap, cap))


class ScaledEmbed(PaddedEmbed):
  """Token embeddings times sqrt(dim); the tied output layer uses the table unscaled."""

  def __call__(self, inputs):
    """int32 [...] -> [..., dim]"""
    x = super().__call__(inputs)
    return x * jnp.asarray(self.features**0.5, x.dtype)


class OneCentredNorm(nn.Module):
  """RMSNorm with a scale around 0: (1 + scale) * x / sqrt(mean(x^2) + epsilon) over the last axis."""

  epsilon: float
  dtype: Any = None

  @nn.compact
  def __call__(self, x):
    """[..., dim] -> [..., dim]"""
    scale = self.param("scale", initial.zeros, x.shape[-1:]).astype(jnp.float32)
    y = x.astype(jnp.float32)
    y *= jax.lax.rsqrt((y * y).mean(-1, keepdims=True) + self.epsilon)
    return (y * (1 + scale).reshape((1,) * (x.ndim - 1) + scale.shape)).astype(self.dtype or x.dtype)


def gemma(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int,
  tied: bool = True,
  activation: str = "gelu_tanh",
  epsilon: float = 1e-6,
  theta: float = 10_000.0,
  local_theta: float | None = None,
  local_rope: dict | None = None,
  pattern: list | None = None,
  bidirectional: bool = False,
  query_scalar: int | None = None,
  attention_cap: float | None = None,
  cap: float | None = None,
  sandwich: bool = False,
  **options: Unpack[DecoderOptions],
) -> Decoder:
  """A Gemma of these sizes; sizes not listed here as in `zoo.models.llama`.

  local_theta, local_rope: of the rotary positions of local layers; theta and rope if local_theta is None.
  bidirectional: whether tokens also attend to later ones; the window is then split over both sides. Not with head "lm".
  query_scalar: attention logits are divided by its square root; head_dim if None.
  attention_cap, cap: soft caps of attention logits and of output logits; None: uncapped.
  sandwich: whether outputs of sublayers are normed too, as since Gemma 2.
  """
  common = resolve(DecoderOptions, options)
  head, dropout, dtype = common.head, common.dropout, common.dtype
  head_dim = sizes.head_dim(dim, num_heads) if common.head_dim is None else common.head_dim
  sizes.positive(vocab_size=vocab_size, max_length=max_length, dim=dim, depth=depth, num_heads=num_heads)
  sizes.positive(mlp_dim=mlp_dim, head_dim=head_dim, num_kv_heads=common.num_kv_heads, query_scalar=query_scalar)
  sizes.head_fits(head, HEADS, common.num_classes)
  for name, value in (("attention_cap", attention_cap), ("cap", cap)):
    if value is not None and value <= 0:
      raise ValueError(f"{name} is {value}. It must be above 0, or None.")
  if bidirectional and head == "lm":
    raise ValueError(
      "bidirectional is True and head is 'lm', which would see the token to predict. Change one of them."
    )
  rules = mask_pattern(common.window, pattern)
  local_rules = [rule is not masks.causal for rule in rules]
  if bidirectional:
    rules = [None if common.window is None or not local else masks.window(common.window // 2) for local in local_rules]
  init = initial.normal(0.02)
  norm = OneCentredNorm(epsilon, dtype)
  everywhere = rotary(theta, rope_scaling.scaling(common.rope))
  nearby = everywhere if local_theta is None else rotary(local_theta, rope_scaling.scaling(local_rope))
  attention = Attention(
    num_heads,
    head_dim,
    num_kv_heads=common.num_kv_heads,
    kernel=by_pattern if attention_cap is None else capped_attention(attention_cap),
    scale=(head_dim if query_scalar is None else query_scalar) ** -0.5,
    qk_norm=norm.copy() if common.qk_norm else None,
    use_bias=common.attention_bias,
    dropout=dropout,
    dtype=dtype,
    kernel_init=init,
    out_init=init,
  )
  mlp = GatedMLP(mlp_dim, activation, dtype=dtype, kernel_init=init, down_init=init)
  blocks = tuple(
    PreNormBlock(
      attention.copy(mask=rule, rotary=nearby if local else everywhere),
      mlp,
      norm,
      after=norm.copy() if sandwich else None,
      dropout=dropout,
    )
    for rule, local in zip(rules, local_rules)
  )
  return with_head(
    head,
    tied,
    common.num_classes,
    language_model=functools.partial(GemmaLM, cap=cap),
    embed=ScaledEmbed(vocab_size, dim, pad=common.pad, dtype=dtype, embedding_init=init),
    stack=stack(blocks, depth, **common.stacking),
    norm=norm.copy(),
    max_length=max_length,
    pad=common.pad,
    dropout=dropout,
  )


_SECOND = dict(attention_cap=50.0, cap=30.0, sandwich=True, window=4096, pattern=["local", "global"])
_THIRD = dict(
  theta=1_000_000.0,
  local_theta=10_000.0,
  sandwich=True,
  qk_norm=True,
  query_scalar=256,
  pattern=["local"] * 5 + ["global"],
)
# Table 1 of each paper; lengths, windows and vocabularies of the releases.
VARIANTS = {
  **by_name(
    {"gemma-2b": (2048, 18, 8, 1, 256, 16384), "gemma-7b": (3072, 28, 16, 16, 256, 24576)},
    **dict(vocab_size=256000, max_length=8192, pad=0),
  ),
  **by_name(
    {"gemma-2-2b": (2304, 26, 8, 4, 256, 9216), "gemma-2-9b": (3584, 42, 16, 8, 256, 14336)},
    **dict(vocab_size=256000, max_length=8192, pad=0, query_scalar=256, **_SECOND),
  ),
  **by_name(
    {"gemma-2-27b": (4608, 46, 32, 16, 128, 36864)},
    **dict(vocab_size=256000, max_length=8192, pad=0, query_scalar=144, **_SECOND),
  ),
  **by_name(
    {"gemma-3-270m": (640, 18, 4, 1, 256, 2048), "gemma-3-1b": (1152, 26, 4, 1, 256, 6912)},
    **dict(vocab_size=262144, max_length=32768, pad=0, window=512, **_THIRD),
  ),
  **by_name(
    {"gemma-3-4b": (2560, 34, 8, 4, 256, 10240), "gemma-3-12b": (3840, 48, 16, 8, 256, 15360)},
    **dict(vocab_size=262208, max_length=131072, pad=0, window=1024, rope=dict(name="linear", factor=8.0), **_THIRD),
  ),
  **by_name(
    {"gemma-3-27b": (5376, 62, 32, 16, 128, 21504)},
    **dict(vocab_size=262208, max_length=131072, pad=0, window=1024, rope=dict(name="linear", factor=8.0)),
    **{**_THIRD, "query_scalar": 168},
  ),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "gemma-2b": 2_506_172_416,
  "gemma-7b": 8_537_680_896,
  "gemma-2-2b": 2_614_341_888,
  "gemma-2-9b": 9_241_705_984,
  "gemma-2-27b": 27_227_128_320,
  "gemma-3-270m": 268_098_176,
  "gemma-3-1b": 999_885_952,
  "gemma-3-4b": 3_880_263_168,
  "gemma-3-12b": 11_766_034_176,
  "gemma-3-27b": 27_009_346_304,
}
