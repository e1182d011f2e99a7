"""SigLIP's text tower alone, and SigLIP 2's, which is the same. https://arxiv.org/abs/2303.15343"""

from typing import Any, Unpack

import jax.numpy as jnp

from zoo.layers import initial, sizes
from zoo.layers.compute import Compute, resolve
from zoo.layers.dense import Dense
from zoo.layers.embeddings import Embed
from zoo.layers.positions import Learned
from zoo.models.clip_text import TextEncoder, TextTower
from zoo.models.siglip_vision import PAPER as PAPER
from zoo.models.siglip_vision import PAPERS as PAPERS
from zoo.models.siglip_vision import VisionOptions, layers


def last_position(tokens, valid):
  """Index of the last token, padding or not: SigLIP pads all texts to one length. int32 [batch]"""
  return jnp.full(tokens.shape[:1], tokens.shape[1] - 1)


def siglip_text(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int | None = None,
  embed_dim: int | None = None,
  activation: str = "gelu_tanh",
  epsilon: float = 1e-6,
  **options: Unpack[Compute],
) -> TextEncoder:
  """A text tower of these sizes, which pools the last token, padding or not: pad all texts to one length.

  mlp_dim, embed_dim: 4 * dim, dim if None.
  """
  sizes.positive(embed_dim=embed_dim)
  widths: dict[str, Any] = dict(dim=dim, mlp_dim=mlp_dim, embed_dim=embed_dim or dim)
  common: dict[str, Any] = dict(depth=depth, num_heads=num_heads, activation=activation, epsilon=epsilon, **options)
  return TextEncoder(text=tower(vocab_size=vocab_size, max_length=max_length, **widths, **common))


def tower(*, vocab_size, max_length, dim, depth, num_heads, mlp_dim, embed_dim, which="", **options: Any) -> TextTower:
  """The text tower of these sizes; `options`: activation, epsilon, `Compute`. which: prefix of names in messages."""
  sizes.positive(vocab_size=vocab_size, max_length=max_length)
  common = resolve(VisionOptions, options)
  encoder = layers(common, dim=dim, depth=depth, num_heads=num_heads, mlp_dim=mlp_dim, which=which)
  width = initial.normal(dim**-0.5)
  return TextTower(
    embed=Embed(vocab_size, dim, dtype=common.dtype, embedding_init=width),
    positions=Learned(max_length, dim, embedding_init=width),
    projection=Dense(embed_dim, dtype=common.dtype, kernel_init=initial.lecun_normal()),
    read_at=last_position,
    **encoder,
  )


# The towers of zoo/models/siglip.py, among them those of SigLIP 2 for images of any shape.
_BASE = dict(max_length=64, dim=768, depth=12, num_heads=12)
_LARGE = dict(max_length=64, dim=1024, depth=24, num_heads=16)
_SO400M = dict(max_length=64, dim=1152, depth=27, num_heads=16, mlp_dim=4304)
VARIANTS = {
  "B": dict(vocab_size=32000, **_BASE),
  "L": dict(vocab_size=32000, **_LARGE),
  "So400m": dict(vocab_size=32000, **_SO400M),
  "2-B": dict(vocab_size=256000, **_BASE),
  "2-L": dict(vocab_size=256000, **_LARGE),
  "2-So400m": dict(vocab_size=256000, **_SO400M),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "B": 110_271_744,
  "L": 336_194_560,
  "So400m": 449_734_896,
  "2-B": 282_303_744,
  "2-L": 565_570_560,
  "2-So400m": 707_782_896,
}
