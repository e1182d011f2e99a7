"""MAE: Masked Autoencoders Are Scalable Vision Learners (He et al., 2021): the encoder.

https://arxiv.org/abs/2111.06377. Code: https://github.com/facebookresearch/mae.
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
from zoo.layers.embeddings import ClassToken, PatchEmbed
from zoo.layers.mixed_precision import add, pick
from zoo.layers.mlp import MLP
from zoo.layers.positions import Fixed
from zoo.layers.stack import stack
from zoo.models.model import Model

PAPER = {
  "title": "Masked Autoencoders Are Scalable Vision Learners",
  "authors": "He et al.",
  "year": 2021,
  "url": "https://arxiv.org/abs/2111.06377",
}


class MAE(Model):
  """Image encoder with a class token that in pretraining sees only a few of the patches."""

  patches: nn.Module
  class_token: nn.Module
  positions: nn.Module
  stack: nn.Module
  norm: nn.Module
  image_size: int
  channels: int = 3
  mask_ratio: float = 0.75
  dropout: float = 0.0

  @nn.compact
  def __call__(self, image, *, noise=None, train=False):
    """Hidden states of all patches, or of those that are kept.

    Args:
      image: float [batch, image_size, image_size, channels]
      noise: float [batch, patches]: the patches with the smallest values are kept, 1 - `mask_ratio` of them;
        e.g. `jax.random.uniform(rng, (batch, patches))`. All are kept if None.

    Returns:
      dict of "hidden" [batch, 1 + kept, dim] (normed; the class token first, then the kept patches in order of their
      noise), "pooled" [batch, dim] (the class token) and, with noise, "masked" bool [batch, patches], True where a
      patch is masked, and "restore" int32 [batch, patches], each patch's rank in the order of the noise.
    """
    sizes.image_fits(image, self.image_size, self.channels)
    x = self.class_token(self.patches(image))
    x = add(x, self.positions(x.shape[1]))
    x, out = (x, {}) if noise is None else self.left_by(noise, x)
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    x = self.norm(self.stack(x, train=train))
    return {"hidden": x, "pooled": x[:, 0], **out}

  @nn.nowrap
  def left_by(self, noise, x):
    """Drops masked patches -> [batch, 1 + kept, dim], {"masked", "restore"} as of a call."""
    count = x.shape[1] - 1
    if noise.shape != (x.shape[0], count):
      raise ValueError(
        f"noise has shape {list(noise.shape)}, the model needs {[x.shape[0], count]}, one value per patch."
      )
    order = jnp.argsort(noise, axis=1)
    restore = jnp.argsort(order, axis=1).astype(jnp.int32)
    num_kept = int(count * (1 - self.mask_ratio))
    x = jnp.concatenate([x[:, :1], pick(x, 1 + order[:, :num_kept])], axis=1)
    return x, {"masked": restore >= num_kept, "restore": restore}

  @nn.nowrap
  def example(self, batch_size=1):
    return (jnp.zeros((batch_size, self.image_size, self.image_size, self.channels)),)


@functools.cache
def sinusoids(side):
  """2D sinusoidal positions of a grid, row by row, after a zero vector for the class token. Half of a vector encodes
  the column, half the row, each as sines, then cosines, of wavelengths up to 10,000.
  """

  def init(key, shape, dtype=jnp.float32):
    width = shape[1] // 4
    angle = np.arange(side)[:, None] * 10_000.0 ** -(np.arange(width) / width)[None]
    waves = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    column, row = np.tile(waves, (side, 1)), np.repeat(waves, side, axis=0)
    return jnp.asarray(np.pad(np.concatenate([column, row], axis=1), ((1, 0), (0, 0))), dtype)

  return init


def mae(
  *,
  image_size: int,
  patch_size: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int | None = None,
  mask_ratio: float = 0.75,
  qkv_bias: bool = True,
  activation: str = "gelu",
  epsilon: float = 1e-6,
  channels: int = 3,
  **options: Unpack[Compute],
) -> MAE:
  """The encoder of an MAE of these sizes; mlp_dim defaults to 4 * dim; epsilon: of the norms.

  mask_ratio: share of patches that is masked if noise is passed.
  """
  dropout, dtype, stacking = computing(options)
  head_dim, grid = sizes.head_dim(dim, num_heads), sizes.patch_grid(image_size, patch_size)
  sizes.positive(depth=depth, mlp_dim=mlp_dim, channels=channels)
  sizes.rate(mask_ratio=mask_ratio)
  if dim % 4:
    raise ValueError(f"dim {dim} is not a multiple of 4, as sines and cosines of rows and columns need. Change it.")
  init = initial.xavier_uniform()
  norm = norms.layer_norm(epsilon, dtype)
  attention = Attention(
    num_heads, head_dim, use_bias=qkv_bias, out_bias=True, dropout=dropout, dtype=dtype, kernel_init=init, out_init=init
  )
  mlp = MLP(mlp_dim or 4 * dim, activation, dropout=dropout, dtype=dtype, kernel_init=init, down_init=init)
  block = PreNormBlock(attention, mlp, norm, dropout=dropout)
  # The fan-out of the patch embedding as a matrix: a convolution's would count each pixel's outputs.
  patches_init = initial.variance_scaling(1.0, "fan_avg", "uniform", in_axis=(0, 1, 2), out_axis=3)
  return MAE(
    patches=PatchEmbed(patch_size, dim, dtype=dtype, kernel_init=patches_init),
    class_token=ClassToken(token_init=initial.normal(0.02)),
    positions=Fixed(grid**2 + 1, dim, embedding_init=sinusoids(grid)),
    stack=stack(block, depth, **stacking),
    norm=norm.copy(),
    image_size=image_size,
    channels=channels,
    mask_ratio=mask_ratio,
    dropout=dropout,
  )


# The encoders of table 3 of the paper.
VARIANTS = {
  "base": dict(image_size=224, patch_size=16, dim=768, depth=12, num_heads=12),
  "large": dict(image_size=224, patch_size=16, dim=1024, depth=24, num_heads=16),
  "huge": dict(image_size=224, patch_size=14, dim=1280, depth=32, num_heads=16),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "base": 85_798_656,
  "large": 303_301_632,
  "huge": 630_764_800,
}
