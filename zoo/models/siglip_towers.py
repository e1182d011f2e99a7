"""SigLIP's two towers, together in zoo/models/siglip.py and alone in siglip_text.py and siglip_vision.py."""

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, norms, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PreNormBlock
from zoo.layers.dense import Dense
from zoo.layers.embeddings import Embed, PatchEmbed
from zoo.layers.mixed_precision import add, broadcast
from zoo.layers.mlp import MLP
from zoo.layers.positions import Learned
from zoo.layers.sequence import SequenceInfo
from zoo.layers.stack import stack
from zoo.models.clip_towers import TextTower


class AttentionPool(nn.Module):
  """One trained query looks at all; what it gets passes a layer of its own. https://arxiv.org/abs/1810.00825"""

  attention: nn.Module
  norm: nn.Module
  mlp: nn.Module

  @nn.compact
  def __call__(self, x, *, valid=None, train=False):
    """[batch, length, dim], of which those are looked at that are valid, bool [batch, length] -> [batch, dim]"""
    query = self.param("embedding", initial.xavier_uniform(), (1, x.shape[-1]))
    query = broadcast(query, (x.shape[0], *query.shape), x.dtype)
    y = self.attention(query, x, context_info=SequenceInfo(valid), train=train)
    return (y + self.mlp(self.norm(y), train=train))[:, 0]


class ImageTower(nn.Module):
  """A ViT without a class token: its patches are pooled. Pixels beyond the last whole patch are not looked at."""

  patches: nn.Module
  positions: nn.Module
  stack: nn.Module
  norm: nn.Module
  pool: nn.Module | None
  dropout: float = 0.0

  @nn.compact
  def __call__(self, image, *, train=False):
    """[batch, image_size, image_size, channels] -> dict of "hidden" [batch, patches, dim] (normed) and, by the pool,
    "embedded" [batch, dim]"""
    side = image.shape[1] // self.patches.patch_size * self.patches.patch_size
    x = self.patches(image[:, :side, :side])
    x = nn.Dropout(self.dropout)(add(x, self.positions(x.shape[1])), deterministic=not train)
    x = self.norm(self.stack(x, train=train))
    return {"hidden": x} if self.pool is None else {"hidden": x, "embedded": self.pool(x, train=train)}


def at_end(tokens, valid):
  """The last place of the sequence, padding or not: texts are padded to one length, and so read at one place."""
  return jnp.full(tokens.shape[:1], tokens.shape[1] - 1)


def image_tower(
  *,
  image_size,
  patch_size,
  channels,
  dim,
  num_heads,
  mlp_dim,
  pool,
  activation,
  epsilon,
  dropout,
  dtype,
  which="",
  **rest,
) -> ImageTower:
  """The image tower of these sizes, with or without the pool; `rest` as `_tower` takes it."""
  sizes.positive(image_size=image_size, patch_size=patch_size, channels=channels)
  if patch_size > image_size:
    raise ValueError(f"patch_size {patch_size} exceeds image_size {image_size}. Make it smaller.")
  dtype = sizes.compute_dtype(dtype)
  common = dict(dim=dim, num_heads=num_heads, mlp_dim=mlp_dim, activation=activation, dropout=dropout, dtype=dtype)
  encoder = _tower(epsilon=epsilon, which=which, **common, **rest)
  parts = _attention_and_mlp(which=which, **common)
  return ImageTower(
    patches=PatchEmbed(patch_size, dim, dtype=dtype),
    positions=Learned((image_size // patch_size) ** 2, dim, embedding_init=initial.normal(dim**-0.5)),
    pool=AttentionPool(parts[0], norms.layer_norm(epsilon, dtype), parts[1]) if pool else None,
    dropout=dropout,
    **encoder,
  )


def text_tower(*, vocab_size, max_length, dim, embed_dim, dropout, dtype, **rest) -> TextTower:
  """The text tower of these sizes; `rest` as `_tower` takes it."""
  sizes.positive(vocab_size=vocab_size, max_length=max_length)
  dtype = sizes.compute_dtype(dtype)
  encoder = _tower(dim=dim, dropout=dropout, dtype=dtype, **rest)
  width = initial.normal(dim**-0.5)
  return TextTower(
    embed=Embed(vocab_size, dim, dtype=dtype, embedding_init=width),
    positions=Learned(max_length, dim, embedding_init=width),
    projection=Dense(embed_dim, dtype=dtype, kernel_init=initial.lecun_normal()),
    read_at=at_end,
    dropout=dropout,
    **encoder,
  )


def _tower(*, depth, epsilon, dropout, dtype, drop_path=0.0, scan=None, remat=None, which="", **rest):
  """What the two towers have in common. which: prefix of names in messages."""
  sizes.positive(**{f"{which}depth": depth})
  attention, mlp = _attention_and_mlp(dropout=dropout, dtype=dtype, which=which, **rest)
  norm = norms.layer_norm(epsilon, dtype)
  block = PreNormBlock(attention, mlp, norm, dropout=dropout)
  return dict(stack=stack(block, depth, scan=scan, remat=remat, drop_path=drop_path), norm=norm.copy())


def _attention_and_mlp(*, dim, num_heads, mlp_dim, activation, dropout, dtype, which):
  """Those of a block, and of the pool."""
  sizes.positive(**{f"{which}dim": dim, f"{which}mlp_dim": mlp_dim})
  sizes.rate(dropout=dropout)
  xavier = initial.xavier_uniform()
  attention = Attention(
    num_heads, sizes.head_dim(dim, num_heads, which), dropout=dropout, dtype=dtype, kernel_init=xavier, out_init=xavier
  )
  return attention, MLP(
    mlp_dim or 4 * dim, activation, dropout=dropout, dtype=dtype, kernel_init=xavier, down_init=xavier
  )
