"""CLIP's text tower alone, on which text-to-image models are conditioned. https://arxiv.org/abs/2103.00020"""

import functools
from collections.abc import Callable
from typing import Annotated, Any, TypedDict, Unpack

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, masks, norms, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PreNormBlock
from zoo.layers.compute import Compute, resolve
from zoo.layers.dense import Dense
from zoo.layers.embeddings import Embed
from zoo.layers.mixed_precision import pick
from zoo.layers.mlp import MLP
from zoo.layers.positions import Learned, add_positions
from zoo.layers.sequence import SequenceInfo
from zoo.layers.stack import stack
from zoo.models.model import Model

PAPER = {
  "title": "Learning Transferable Visual Models From Natural Language Supervision",
  "authors": "Radford et al.",
  "year": 2021,
  "url": "https://arxiv.org/abs/2103.00020",
}


@functools.cache
def at_end(eos):
  """Index of the first token `eos`, else of the last valid token: int32 [batch]."""

  def place(tokens, valid):
    is_end = tokens == eos
    last = tokens.shape[1] - 1 - (0 if valid is None else jnp.argmax(valid[:, ::-1], axis=1))
    return jnp.where(is_end.any(1), is_end.argmax(1), last)

  return place


@functools.cache
def at_eos(eos):
  """Index of the first token `eos`, else 0: transformers from version 4.32 on."""
  return lambda tokens, valid: (tokens == eos).argmax(1)


@functools.cache
def at_largest(eos):
  """Index of the largest token id: https://github.com/openai/CLIP, clip/model.py, `encode_text`."""
  return lambda tokens, valid: tokens.argmax(1)


READ_AT = {"end": at_end, "eos": at_eos, "largest": at_largest}


class TextTower(nn.Module):
  """Text tower: a Transformer whose state at index `read_at(tokens, valid)`, int32 [batch], is normed and projected."""

  embed: nn.Module
  positions: nn.Module
  stack: nn.Module
  norm: nn.Module
  projection: nn.Module | None
  read_at: Callable
  dropout: float = 0.0

  @nn.compact
  def __call__(self, tokens, *, valid=None, positions=None, train=False):
    """Hidden states, the pooled state, and its projection.

    Args:
      tokens: int32 [batch, length]
      valid: bool [batch, length], True = a real token.
      positions: int32 [batch or 1, length], of the embedding; counted from 0 if None.

    Returns:
      dict of "hidden" [batch, length, dim] (normed), "pooled" [batch, dim] and, with a projection, "embedded" [batch,
      embed_dim]
    """
    x = add_positions(self.embed(tokens), self.positions, SequenceInfo(valid, positions))
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    x = self.stack(x, info=SequenceInfo(valid), train=train)
    # Two norms: if only the pooled state is used, XLA removes the other.
    pooled = self.norm(pick(x, self.read_at(tokens, valid)[:, None])[:, 0])
    return projected({"hidden": self.norm(x), "pooled": pooled}, self.projection)

  @property
  def max_length(self):
    return self.positions.max_length


def projected(out, projection):
  """`out` with "embedded", the projection of "pooled"; unchanged if there is no projection."""
  return out if projection is None else {**out, "embedded": projection(out["pooled"])}


class TextEncoder(Model):
  """Text tower as a model of its own."""

  text: nn.Module

  def __call__(self, tokens, *, valid=None, train=False):
    """Hidden states, the pooled state, and its projection.

    Args:
      tokens: int32 [batch, length]
      valid: bool [batch, length], True = a real token; the published models were trained without.

    Returns:
      dict of "hidden" [batch, length, dim] (normed), "pooled" [batch, dim] and, with embed_dim, "embedded" [batch,
      embed_dim] (not of unit length)
    """
    sizes.tokens_fit(tokens)
    return self.text(tokens, valid=valid, train=train)

  @property
  def max_length(self):
    return self.text.max_length

  @nn.nowrap
  def example(self, batch_size=1):
    return (jnp.zeros((batch_size, min(self.max_length, 8)), jnp.int32),)


class TowerSizes(TypedDict, total=False):
  """Options of CLIP's towers.

  mlp_dim: 4 * dim if None.
  embed_dim: of the projection; None: there is none.
  epsilon: of the norms.
  """

  mlp_dim: Annotated[int | None, None]
  embed_dim: Annotated[int | None, None]
  activation: Annotated[str, "quick_gelu"]
  epsilon: Annotated[float, 1e-5]


class TowerOptions(TowerSizes, Compute):
  """Options that factories pass on to CLIP's towers."""


def clip_text(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  eos: int | None = None,
  read_at: str = "end",
  **options: Unpack[TowerOptions],
) -> TextEncoder:
  """A text tower of these sizes; `options` as of `TowerSizes` and `zoo.layers.compute.Compute`.

  eos, read_at: as in `zoo.models.clip.clip`.
  """
  sizes.positive(embed_dim=options.get("embed_dim"))
  tokens: dict[str, Any] = dict(vocab_size=vocab_size, max_length=max_length, eos=eos, read_at=read_at, **options)
  return TextEncoder(text=tower(dim=dim, depth=depth, num_heads=num_heads, **tokens))


def tower(
  *, vocab_size, max_length, eos=None, read_at="end", dim, depth, num_heads, which="", **options: Unpack[TowerOptions]
) -> TextTower:
  """The text tower of these sizes. which: prefix of names in messages."""
  sizes.positive(vocab_size=vocab_size, max_length=max_length)
  eos = vocab_size - 1 if eos is None else eos
  if eos < 0 or (eos >= vocab_size and read_at == "end"):
    raise ValueError(f"eos is {eos}. It must be a token id: at least 0, below vocab_size {vocab_size}.")
  if read_at not in READ_AT:
    raise ValueError(f"read_at is {read_at!r}. It may be: {', '.join(READ_AT)}.")
  dtype = resolve(TowerOptions, options).dtype
  return TextTower(
    embed=Embed(vocab_size, dim, dtype=dtype, embedding_init=initial.normal(0.02)),
    positions=Learned(max_length, dim, embedding_init=initial.normal(0.01)),
    read_at=READ_AT[read_at](eos),
    **layers(dim, depth, num_heads, mask=masks.causal, which=which, **options),
  )


def layers(dim, depth, num_heads, *, mask=None, which="", **options: Unpack[TowerOptions]):
  """The parts of either tower of CLIP: {"stack", "norm", "projection", "dropout"}."""
  common = resolve(TowerOptions, options)
  dropout, dtype = common.dropout, common.dtype
  sizes.positive(**{f"{which}depth": depth, f"{which}mlp_dim": common.mlp_dim})
  head_dim = sizes.head_dim(dim, num_heads, which)
  # Initial values of clip/model.py, `initialize_parameters`.
  init, residual = initial.normal(dim**-0.5), initial.normal(dim**-0.5 * (2 * depth) ** -0.5)
  attention = Attention(
    num_heads, head_dim, mask=mask, dropout=dropout, dtype=dtype, kernel_init=init, out_init=residual
  )
  up_init = initial.normal((2 * dim) ** -0.5)
  mlp = MLP(common.mlp_dim or 4 * dim, common.activation, dtype=dtype, kernel_init=up_init, down_init=residual)
  norm = norms.layer_norm(common.epsilon, dtype)
  block = PreNormBlock(attention, mlp, norm, dropout=dropout)
  embed_dim = common.embed_dim
  return dict(
    stack=stack(block, depth, **common.stacking),
    norm=norm.copy(),
    projection=Dense(embed_dim, use_bias=False, dtype=dtype, kernel_init=init) if embed_dim else None,
    dropout=dropout,
  )


_TEXT = dict(vocab_size=49408, max_length=77, depth=12)
VARIANTS = {
  "ViT-B": dict(dim=512, num_heads=8, embed_dim=512, **_TEXT),
  "ViT-L": dict(dim=768, num_heads=12, embed_dim=768, **_TEXT),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "ViT-B": 63_428_096,
  "ViT-L": 123_650_304,
}
