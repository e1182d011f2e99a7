"""CLIP's two towers, together in zoo/models/clip.py and alone in clip_text.py and clip_vision.py."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, masks, norms, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PreNormBlock
from zoo.layers.dense import Dense
from zoo.layers.embeddings import ClassToken, ConvStem, Embed, PatchEmbed
from zoo.layers.mixed_precision import add, pick
from zoo.layers.mlp import MLP
from zoo.layers.positions import Learned, add_positions
from zoo.layers.sequence import SequenceInfo
from zoo.layers.stack import stack


class ImageTower(nn.Module):
  """A ViT with a norm before its stack; the class token is normed and, where there is a projection, projected."""

  stem: nn.Module | None
  patches: nn.Module
  class_token: nn.Module
  positions: nn.Module
  pre_norm: nn.Module
  stack: nn.Module
  norm: nn.Module
  projection: nn.Module | None
  dropout: float = 0.0

  @nn.compact
  def __call__(self, image, *, train=False):
    """[batch, image_size, image_size, channels] -> dict of "hidden" [batch, 1 + patches, dim], "pooled" [batch, dim],
    "embedded" [batch, embed_dim]"""
    x = image if self.stem is None else self.stem(image)
    x = self.class_token(self.patches(x))
    x = nn.Dropout(self.dropout)(self.pre_norm(add(x, self.positions(x.shape[1]))), deterministic=not train)
    x = self.stack(x, train=train)
    return _read({"hidden": x, "pooled": self.norm(x[:, 0])}, self.projection)


@functools.cache
def at_end(eos):
  """The first token `eos`; the last valid one where there is none."""

  def place(tokens, valid):
    is_end = tokens == eos
    last = tokens.shape[1] - 1 - (0 if valid is None else jnp.argmax(valid[:, ::-1], axis=1))
    return jnp.where(is_end.any(1), is_end.argmax(1), last)

  return place


@functools.cache
def at_eos(eos):
  """The first token `eos`; the first token where there is none: transformers, from version 4.32."""
  return lambda tokens, valid: (tokens == eos).argmax(1)


@functools.cache
def at_largest(eos):
  """The first token of the largest number: https://github.com/openai/CLIP, clip/model.py, `encode_text`."""
  return lambda tokens, valid: tokens.argmax(1)


READ_AT = {"end": at_end, "eos": at_eos, "largest": at_largest}


class TextTower(nn.Module):
  """A causal Transformer; its state at the place `read_at(tokens, valid)` int32 [batch] is normed and projected."""

  embed: nn.Module
  positions: nn.Module
  stack: nn.Module
  norm: nn.Module
  projection: nn.Module | None
  read_at: Callable
  dropout: float = 0.0

  @nn.compact
  def __call__(self, tokens, *, valid=None, positions=None, train=False):
    """int32 [batch, length] -> dict of "hidden" [batch, length, dim] (normed), "pooled" [batch, dim] and "embedded"
    [batch, embed_dim]; positions are int32 [batch or 1, length], counted from 0 if None"""
    # Positions are for the embedding alone: by where tokens stand in a row is who sees whom.
    x = add_positions(self.embed(tokens), self.positions, SequenceInfo(valid, positions))
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    x = self.stack(x, info=SequenceInfo(valid), train=train)
    # Two norms: who wants the pooled state alone does not pay for the others.
    pooled = self.norm(pick(x, self.read_at(tokens, valid)[:, None])[:, 0])
    return _read({"hidden": self.norm(x), "pooled": pooled}, self.projection)


def _read(out, projection):
  return out if projection is None else {**out, "embedded": projection(out["pooled"])}


def image_tower(*, image_size, patch_size, channels, stem_dims=(), dim, dtype=None, epsilon=1e-5, **rest) -> ImageTower:
  """The image tower of these sizes; `rest` as `_tower` takes it."""
  grid = sizes.patch_grid(image_size, patch_size)
  sizes.positive(channels=channels, dim=dim)
  stem_dims, shrunk = tuple(stem_dims), 2 ** len(stem_dims)
  sizes.positive(**{f"stem_dims[{i}]": dim for i, dim in enumerate(stem_dims)})
  if patch_size % shrunk:
    raise ValueError(
      f"patch_size {patch_size} does not divide by {shrunk}, to which the {len(stem_dims)} stem_dims shrink."
    )
  dtype = sizes.compute_dtype(dtype)
  width = initial.normal(dim**-0.5)
  # torch's default for a convolution: uniform in +-1/sqrt(fan_in).
  patch_init = initial.variance_scaling(1 / 3, "fan_in", "uniform")
  return ImageTower(
    stem=ConvStem(stem_dims, dtype=dtype) if stem_dims else None,
    patches=PatchEmbed(patch_size // shrunk, dim, use_bias=False, dtype=dtype, kernel_init=patch_init),
    class_token=ClassToken(token_init=width),
    positions=Learned(grid**2 + 1, dim, embedding_init=width),
    pre_norm=norms.layer_norm(epsilon, dtype),
    **_tower(dim=dim, dtype=dtype, epsilon=epsilon, mask=None, **rest),
  )


def text_tower(*, vocab_size, max_length, eos=None, read_at="end", dim, dtype=None, epsilon=1e-5, **rest) -> TextTower:
  """The text tower of these sizes; `rest` as `_tower` takes it."""
  sizes.positive(vocab_size=vocab_size, max_length=max_length)
  eos = vocab_size - 1 if eos is None else eos
  if eos < 0 or (eos >= vocab_size and read_at == "end"):
    raise ValueError(f"eos is {eos}. It is a token: at least 0, below vocab_size {vocab_size}.")
  if read_at not in READ_AT:
    raise ValueError(f"read_at is {read_at!r}. It may be: {', '.join(READ_AT)}.")
  dtype = sizes.compute_dtype(dtype)
  return TextTower(
    embed=Embed(vocab_size, dim, dtype=dtype, embedding_init=initial.normal(0.02)),
    positions=Learned(max_length, dim, embedding_init=initial.normal(0.01)),
    read_at=READ_AT[read_at](eos),
    **_tower(dim=dim, dtype=dtype, epsilon=epsilon, mask=masks.causal, **rest),
  )


def _tower(
  *,
  dim,
  depth,
  num_heads,
  mlp_dim,
  embed_dim,
  activation,
  epsilon,
  mask,
  dtype,
  dropout=0.0,
  drop_path=0.0,
  scan=None,
  remat=None,
  which="",
):
  """What the two towers have in common. embed_dim None: no projection. which: prefix of names in messages."""
  sizes.positive(**{f"{which}depth": depth, f"{which}mlp_dim": mlp_dim})
  sizes.rate(dropout=dropout)
  head_dim = sizes.head_dim(dim, num_heads, which)
  # Initial values of clip/model.py, `initialize_parameters`.
  init, residual = initial.normal(dim**-0.5), initial.normal(dim**-0.5 * (2 * depth) ** -0.5)
  attention = Attention(
    num_heads, head_dim, mask=mask, dropout=dropout, dtype=dtype, kernel_init=init, out_init=residual
  )
  up = initial.normal((2 * dim) ** -0.5)
  mlp = MLP(mlp_dim or 4 * dim, activation, dtype=dtype, kernel_init=up, down_init=residual)
  norm = norms.layer_norm(epsilon, dtype)
  block = PreNormBlock(attention, mlp, norm, dropout=dropout)
  projection = Dense(embed_dim, use_bias=False, dtype=dtype, kernel_init=init) if embed_dim else None
  return dict(
    stack=stack(block, depth, scan=scan, remat=remat, drop_path=drop_path),
    norm=norm.copy(),
    projection=projection,
    dropout=dropout,
  )
