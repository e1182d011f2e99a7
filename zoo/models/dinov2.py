"""DINOv2: Learning Robust Visual Features without Supervision (Oquab et al., 2023), and the same with registers.

https://arxiv.org/abs/2304.07193, https://arxiv.org/abs/2309.16588. Code: https://github.com/facebookresearch/dinov2.
"""

import functools
from typing import Unpack

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from zoo.layers import initial, norms, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PreNormBlock
from zoo.layers.compute import Compute, computing
from zoo.layers.dense import Dense
from zoo.layers.embeddings import ClassToken, PatchEmbed
from zoo.layers.mixed_precision import add, broadcast
from zoo.layers.mlp import MLP, GatedMLP
from zoo.layers.stack import stack
from zoo.models.model import Model

PAPER = {
  "title": "DINOv2: Learning Robust Visual Features without Supervision",
  "authors": "Oquab et al.",
  "year": 2023,
  "url": "https://arxiv.org/abs/2304.07193",
}


@functools.cache
def cubic(size, new_size, antialias):
  """Resampling matrix [wanted, size] of torch's bicubic `interpolate`.

  Without antialias: Keys' kernel with a = -0.75 over four neighbours, with the edge value repeated. With antialias the
  kernel has a = -0.5, is as wide as one new sample, and is cut at the edges.
  """
  step = size / new_size
  width = max(step, 1.0) if antialias else 1.0
  matrix = np.zeros((new_size, size))
  for row in range(new_size):
    center = (row + 0.5) * step - 0.5
    neighbours = np.arange(int(np.floor(center - 2 * width)), int(np.ceil(center + 2 * width)) + 1)
    if antialias:
      neighbours = neighbours[(neighbours >= 0) & (neighbours < size)]
    weights = _cubic_kernel((neighbours - center) / width, -0.5 if antialias else -0.75)
    np.add.at(matrix[row], neighbours.clip(0, size - 1), weights / weights.sum())
  return matrix.astype(np.float32)


def _cubic_kernel(x, a):
  x = abs(x)
  inside, outside = ((a + 2) * x - (a + 3)) * x**2 + 1, ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
  return np.where(x < 1, inside, np.where(x < 2, outside, 0.0))


class GridPositions(nn.Module):
  """A trained vector per position of a square grid, resampled for grids of other sizes, and one for the class token."""

  side: int
  dim: int
  antialias: bool = False

  @nn.compact
  def __call__(self, height, width):
    """-> [1, 1 + height * width, dim], float32"""
    table = self.param("embedding", initial.truncated_normal(0.02), (1 + self.side**2, self.dim))
    if (height, width) == (self.side, self.side):
      return table[None]
    down, across = (jnp.asarray(cubic(self.side, size, self.antialias)) for size in (height, width))
    grid = table[1:].reshape(self.side, self.side, self.dim)
    grid = jnp.einsum("ij,jkd->ikd", down, grid, precision="highest")
    grid = jnp.einsum("kl,ild->ikd", across, grid, precision="highest")
    return jnp.concatenate([table[:1], grid.reshape(height * width, self.dim)])[None]


class DINOv2(Model):
  """Image encoder with a class token, for images of any size; pixels beyond the last full patch are ignored."""

  patches: nn.Module
  class_token: nn.Module
  positions: nn.Module
  stack: nn.Module
  norm: nn.Module
  head: nn.Module | None
  image_size: int
  channels: int = 3
  registers: int = 0
  mask_token: bool = False
  dropout: float = 0.0

  image_shape = None  # Positions are resampled.

  @nn.compact
  def __call__(self, image, *, masked=None, train=False):
    """Hidden states and class logits.

    Args:
      image: float [batch, height, width, channels]
      masked: bool [batch, patches], True where the mask token replaces a patch; nowhere if None.

    Returns:
      dict of "hidden" [batch, 1 + registers + patches, dim] (normed; the class token, then the registers), "pooled"
      [batch, dim] (the class token) and, where the model has a head, "logits" float32 [batch, num_classes], which are
      of the class token and the mean of the patches.
    """
    self.check(image)
    p = self.patches.patch_size
    height, width = image.shape[1] // p, image.shape[2] // p
    x = self.with_masks(self.patches(image[:, : height * p, : width * p]), masked)
    x = self.with_registers(add(self.class_token(x), self.positions(height, width)))
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    x = self.norm(self.stack(x, train=train))
    out = {"hidden": x, "pooled": x[:, 0]}
    if self.head is None:
      return out
    pooled = jnp.concatenate([x[:, 0], x[:, 1 + self.registers :].mean(axis=1)], axis=-1)
    return {**out, "logits": self.head(pooled).astype(jnp.float32)}

  @nn.nowrap
  def check(self, image):
    """ValueError for images with other channels, and for those smaller than a patch."""
    p = self.patches.patch_size
    if image.ndim != 4 or image.shape[3] != self.channels or min(image.shape[1:3]) < p:
      raise ValueError(
        f"Images have shape {list(image.shape)}, the model needs [batch, height, width, {self.channels}] of at least "
        f"{p} x {p} pixels."
      )

  @nn.nowrap
  def with_masks(self, x, masked):
    """Replaces patches by the mask token where bool [batch, patches] is True: [batch, patches, dim] -> the same"""
    if not self.mask_token and masked is not None:
      raise ValueError("This model has no mask token. Build it with mask_token=True, or leave out masked.")
    token = self.param("mask_token", initial.zeros, (1, x.shape[-1])) if self.mask_token else None
    return x if masked is None else jnp.where(masked[:, :, None].astype(bool), broadcast(token, x.shape, x.dtype), x)

  @nn.nowrap
  def with_registers(self, x):
    """[batch, 1 + patches, dim] -> [batch, 1 + registers + patches, dim]"""
    if not self.registers:
      return x
    registers = self.param("registers", initial.zeros, (self.registers, x.shape[-1]))
    registers = broadcast(registers, (x.shape[0], *registers.shape), x.dtype)
    return jnp.concatenate([x[:, :1], registers, x[:, 1:]], axis=1)

  @nn.nowrap
  def example(self, batch_size=1):
    return (jnp.zeros((batch_size, self.image_size, self.image_size, self.channels)),)


def dinov2(
  *,
  image_size: int,
  patch_size: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int | None = None,
  num_classes: int | None = None,
  registers: int | None = None,
  gated: bool = False,
  qkv_bias: bool = True,
  mask_token: bool = False,
  layer_scale: float = 1.0,
  activation: str = "gelu",
  epsilon: float = 1e-6,
  channels: int = 3,
  **options: Unpack[Compute],
) -> DINOv2:
  """A DINOv2 of these sizes; mlp_dim defaults to 4 * dim; no head if num_classes is None; epsilon: of the norms.

  image_size: the image size whose patches have one position each; for others the positions are resampled.
  registers: number of register tokens; with them, positions are resampled with antialias.
  gated: whether the MLP is a SwiGLU, which ignores `activation`.
  layer_scale: initial value of the LayerScale after each sublayer.
  """
  dropout, dtype, stacking = computing(options)
  head_dim = sizes.head_dim(dim, num_heads)
  sizes.positive(image_size=image_size, patch_size=patch_size, depth=depth, mlp_dim=mlp_dim, num_classes=num_classes)
  sizes.positive(channels=channels, registers=registers)
  if patch_size > image_size:
    raise ValueError(f"patch_size {patch_size} exceeds image_size {image_size}. Make it smaller.")
  init = initial.truncated_normal(0.02)
  norm = norms.layer_norm(epsilon, dtype)
  attention = Attention(
    num_heads, head_dim, use_bias=qkv_bias, out_bias=True, dropout=dropout, dtype=dtype, kernel_init=init, out_init=init
  )
  feed_forward = functools.partial(GatedMLP if gated else MLP, mlp_dim or 4 * dim, "silu" if gated else activation)
  mlp = feed_forward(use_bias=True, dtype=dtype, kernel_init=init, down_init=init)
  block = PreNormBlock(attention, mlp, norm, after=norms.LayerScale(layer_scale, dtype), dropout=dropout)
  return DINOv2(
    patches=PatchEmbed(patch_size, dim, dtype=dtype, kernel_init=init),
    class_token=ClassToken(token_init=init),
    positions=GridPositions(image_size // patch_size, dim, antialias=registers is not None),
    stack=stack(block, depth, **stacking),
    norm=norm.copy(),
    head=None if num_classes is None else Dense(num_classes, dtype=dtype, kernel_init=init),
    image_size=image_size,
    channels=channels,
    registers=registers or 0,
    mask_token=mask_token,
    dropout=dropout,
  )


# Table 17 of the paper; the giant's SwiGLU has two thirds of 4 * dim.
_SIZES = {
  "S/14": dict(dim=384, depth=12, num_heads=6),
  "B/14": dict(dim=768, depth=12, num_heads=12),
  "L/14": dict(dim=1024, depth=24, num_heads=16),
  "g/14": dict(dim=1536, depth=40, num_heads=24, mlp_dim=4096, gated=True),
}
VARIANTS = {
  f"{size}{name}": dict(image_size=518, patch_size=14, mask_token=True, **own, **_SIZES[size])
  for name, own in (("", {}), ("-registers", dict(registers=4)))
  for size in _SIZES
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "S/14": 22_056_576,
  "B/14": 86_580_480,
  "L/14": 304_368_640,
  "g/14": 1_136_480_768,
  "S/14-registers": 22_058_112,
  "B/14-registers": 86_583_552,
  "L/14-registers": 304_372_736,
  "g/14-registers": 1_136_486_912,
}
