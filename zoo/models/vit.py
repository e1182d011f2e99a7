"""ViT: An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale (Dosovitskiy et al., 2020).

https://arxiv.org/abs/2010.11929. Code: https://github.com/google-research/vision_transformer.
"""

from typing import Unpack

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, norms, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PreNormBlock
from zoo.layers.compute import Compute, computing
from zoo.layers.dense import Dense
from zoo.layers.embeddings import ClassToken, PatchEmbed
from zoo.layers.mixed_precision import add
from zoo.layers.mlp import MLP
from zoo.layers.positions import Learned
from zoo.layers.stack import stack
from zoo.models.model import Model

PAPER = {
  "title": "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
  "authors": "Dosovitskiy et al.",
  "year": 2020,
  "url": "https://arxiv.org/abs/2010.11929",
}


class ViT(Model):
  """Image encoder with a class token."""

  patches: nn.Module
  class_token: nn.Module
  positions: nn.Module
  stack: nn.Module
  norm: nn.Module
  pooler: nn.Module | None
  head: nn.Module | None
  image_size: int
  channels: int = 3
  dropout: float = 0.0

  @nn.compact
  def __call__(self, image, *, train=False):
    """Hidden states and class logits.

    Args:
      image: float [batch, image_size, image_size, channels]

    Returns:
      dict of "hidden" [batch, 1 + patches, dim] (normed, the class token first), "pooled" [batch, dim] (the class
      token, after the pooler if there is one) and, where the model has a head, "logits" float32 [batch, num_classes]
    """
    sizes.image_fits(image, self.image_size, self.channels)
    x = self.class_token(self.patches(image))
    x = nn.Dropout(self.dropout)(add(x, self.positions(x.shape[1])), deterministic=not train)
    x = self.norm(self.stack(x, train=train))
    out = {"hidden": x, "pooled": x[:, 0] if self.pooler is None else nn.tanh(self.pooler(x[:, 0]))}
    return out if self.head is None else {**out, "logits": self.head(out["pooled"]).astype(jnp.float32)}

  @nn.nowrap
  def example(self, batch_size=1):
    return (jnp.zeros((batch_size, self.image_size, self.image_size, self.channels)),)


def vit(
  *,
  image_size: int,
  patch_size: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int | None = None,
  num_classes: int | None = None,
  activation: str = "gelu",
  epsilon: float = 1e-6,
  pooler: bool = False,
  channels: int = 3,
  **options: Unpack[Compute],
) -> ViT:
  """A ViT of these sizes; mlp_dim defaults to 4 * dim; no head if num_classes is None; epsilon: of the norms.

  pooler: whether the class token goes through a tanh layer, `pre_logits` of their code.
  """
  dropout, dtype, stacking = computing(options)
  head_dim, grid = sizes.head_dim(dim, num_heads), sizes.patch_grid(image_size, patch_size)
  sizes.positive(depth=depth, mlp_dim=mlp_dim, num_classes=num_classes, channels=channels)
  init = initial.xavier_uniform()
  norm = norms.layer_norm(epsilon, dtype)
  attention = Attention(num_heads, head_dim, dropout=dropout, dtype=dtype, kernel_init=init, out_init=init)
  mlp = MLP(mlp_dim or 4 * dim, activation, dropout=dropout, dtype=dtype, kernel_init=init, down_init=init)
  block = PreNormBlock(attention, mlp, norm, dropout=dropout)
  return ViT(
    patches=PatchEmbed(patch_size, dim, dtype=dtype),
    class_token=ClassToken(),
    positions=Learned(grid**2 + 1, dim),
    stack=stack(block, depth, **stacking),
    norm=norm.copy(),
    pooler=Dense(dim, dtype=dtype, kernel_init=init) if pooler else None,
    head=None if num_classes is None else Dense(num_classes, dtype=dtype, kernel_init=initial.zeros),
    image_size=image_size,
    channels=channels,
    dropout=dropout,
  )


# Table 1 of the paper (B, L, H); table 2 of https://arxiv.org/abs/2106.10270 (Ti, S).
_SIZES = {
  "Ti": dict(dim=192, depth=12, num_heads=3),
  "S": dict(dim=384, depth=12, num_heads=6),
  "B": dict(dim=768, depth=12, num_heads=12),
  "L": dict(dim=1024, depth=24, num_heads=16),
  "H": dict(dim=1280, depth=32, num_heads=16),
}
VARIANTS = {
  f"{size}/{patch}": dict(image_size=224, patch_size=patch, num_classes=1000, **_SIZES[size])
  for size, patch in [("Ti", 16), ("S", 32), ("S", 16), ("B", 32), ("B", 16), ("L", 32), ("L", 16), ("H", 14)]
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "Ti/16": 5_717_416,
  "S/32": 22_878_952,
  "S/16": 22_050_664,
  "B/32": 88_224_232,
  "B/16": 86_567_656,
  "L/32": 306_535_400,
  "L/16": 304_326_632,
  "H/14": 632_045_800,
}
