"""SigLIP's image tower alone, the vision encoder of many vision-language models. https://arxiv.org/abs/2303.15343"""

from typing import Annotated, TypedDict, Unpack

import flax.linen as nn

from zoo.layers import initial, norms, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PreNormBlock
from zoo.layers.compute import Compute, resolve
from zoo.layers.embeddings import PatchEmbed
from zoo.layers.mixed_precision import add, broadcast
from zoo.layers.mlp import MLP
from zoo.layers.positions import Learned
from zoo.layers.sequence import SequenceInfo
from zoo.layers.stack import stack
from zoo.models.clip_vision import ImageEncoder, ImageTower

PAPER = {
  "title": "Sigmoid Loss for Language Image Pre-Training",
  "authors": "Zhai et al.",
  "year": 2023,
  "url": "https://arxiv.org/abs/2303.15343",
}
# Keyed by the prefix of a variant's name.
PAPERS = {
  "2-": {
    "title": "SigLIP 2: Multilingual Vision-Language Encoders with Improved Semantic Understanding, ...",
    "authors": "Tschannen et al.",
    "year": 2025,
    "url": "https://arxiv.org/abs/2502.14786",
  },
}


class AttentionPool(nn.Module):
  """Attention pooling: one trained query attends to all tokens, followed by an MLP. https://arxiv.org/abs/1810.00825"""

  attention: nn.Module
  norm: nn.Module
  mlp: nn.Module

  @nn.compact
  def __call__(self, x, *, valid=None, train=False):
    """[batch, length, dim], masked by valid, bool [batch, length] -> [batch, dim]"""
    query = self.param("embedding", initial.xavier_uniform(), (1, x.shape[-1]))
    query = broadcast(query, (x.shape[0], *query.shape), x.dtype)
    y = self.attention(query, x, context_info=SequenceInfo(valid), train=train)
    return (y + self.mlp(self.norm(y), train=train))[:, 0]


class SigLIPImageTower(ImageTower):
  """ViT without class token, with pooled patches. Pixels beyond the last full patch are ignored."""

  patches: nn.Module
  positions: nn.Module
  stack: nn.Module
  norm: nn.Module
  pool: nn.Module | None
  dropout: float = 0.0

  @nn.compact
  def __call__(self, image, *, train=False):
    """[batch, image_size, image_size, channels] -> as `ImageTower`, "pooled" only with a pool"""
    side = image.shape[1] // self.patches.patch_size * self.patches.patch_size
    x = self.patches(image[:, :side, :side])
    x = nn.Dropout(self.dropout)(add(x, self.positions(x.shape[1])), deterministic=not train)
    x = self.norm(self.stack(x, train=train))
    return {"hidden": x} if self.pool is None else {"hidden": x, "pooled": self.pool(x, train=train)}


class VisionSizes(TypedDict, total=False):
  """Options of SigLIP's image towers.

  mlp_dim: 4 * dim if None.
  pool: whether there is a pooled output.
  epsilon: of the norms.
  """

  mlp_dim: Annotated[int | None, None]
  pool: Annotated[bool, True]
  activation: Annotated[str, "gelu_tanh"]
  epsilon: Annotated[float, 1e-6]
  channels: Annotated[int, 3]


class VisionOptions(VisionSizes, Compute):
  """Options that factories pass on to SigLIP's image towers."""


def siglip_vision(
  *, image_size: int, patch_size: int, dim: int, depth: int, num_heads: int, **options: Unpack[VisionOptions]
) -> ImageEncoder:
  """An image tower of these sizes; `options` as of `VisionSizes` and `zoo.layers.compute.Compute`."""
  image = tower(image_size=image_size, patch_size=patch_size, dim=dim, depth=depth, num_heads=num_heads, **options)
  return ImageEncoder(image=image)


def tower(
  *, image_size, patch_size, dim, depth, num_heads, which="", **options: Unpack[VisionOptions]
) -> SigLIPImageTower:
  """The image tower of these sizes. which: prefix of names in messages."""
  common = resolve(VisionOptions, options)
  sizes.positive(image_size=image_size, patch_size=patch_size, channels=common.channels)
  if patch_size > image_size:
    raise ValueError(f"patch_size {patch_size} exceeds image_size {image_size}. Make it smaller.")
  width = dict(dim=dim, num_heads=num_heads, mlp_dim=common.mlp_dim, which=which)
  encoder = layers(common, depth=depth, **width)
  attention, mlp = attention_and_mlp(common, **width)
  norm = norms.layer_norm(common.epsilon, common.dtype)
  return SigLIPImageTower(
    patches=PatchEmbed(patch_size, dim, dtype=common.dtype),
    positions=Learned((image_size // patch_size) ** 2, dim, embedding_init=initial.normal(dim**-0.5)),
    pool=AttentionPool(attention, norm, mlp) if common.pool else None,
    image_size=image_size,
    channels=common.channels,
    **encoder,
  )


def layers(common, *, dim, depth, num_heads, mlp_dim, which):
  """The parts of either tower of SigLIP: {"stack", "norm", "dropout"}; `common`: from `zoo.layers.compute.resolve`."""
  sizes.positive(**{f"{which}depth": depth})
  attention, mlp = attention_and_mlp(common, dim=dim, num_heads=num_heads, mlp_dim=mlp_dim, which=which)
  norm = norms.layer_norm(common.epsilon, common.dtype)
  block = PreNormBlock(attention, mlp, norm, dropout=common.dropout)
  return dict(stack=stack(block, depth, **common.stacking), norm=norm.copy(), dropout=common.dropout)


def attention_and_mlp(common, *, dim, num_heads, mlp_dim, which):
  """The attention and the MLP of a block, and of the pool."""
  sizes.positive(**{f"{which}dim": dim, f"{which}mlp_dim": mlp_dim})
  init, dropout, dtype = initial.xavier_uniform(), common.dropout, common.dtype
  head_dim = sizes.head_dim(dim, num_heads, which)
  attention = Attention(num_heads, head_dim, dropout=dropout, dtype=dtype, kernel_init=init, out_init=init)
  widths = mlp_dim or 4 * dim, common.activation
  return attention, MLP(*widths, dropout=dropout, dtype=dtype, kernel_init=init, down_init=init)


# The towers of zoo/models/siglip.py.
_BASE = dict(image_size=224, patch_size=16, dim=768, depth=12, num_heads=12)
_LARGE = dict(image_size=256, patch_size=16, dim=1024, depth=24, num_heads=16)
_SO400M = dict(patch_size=14, dim=1152, depth=27, num_heads=16, mlp_dim=4304)
VARIANTS = {
  "B/16": _BASE,
  "L/16": _LARGE,
  "So400m/14": dict(image_size=384, **_SO400M),
  "2-B/16": _BASE,
  "2-L/16": _LARGE,
  "2-So400m/14": dict(image_size=224, **_SO400M),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "B/16": 92_884_224,
  "L/16": 315_956_224,
  "So400m/14": 428_225_600,
  "2-B/16": 92_884_224,
  "2-L/16": 315_956_224,
  "2-So400m/14": 427_680_704,
}
