"""SigLIP: Sigmoid Loss for Language Image Pre-Training (Zhai et al., 2023), and SigLIP 2 at fixed resolutions.

https://arxiv.org/abs/2303.15343, https://arxiv.org/abs/2502.14786. Code: https://github.com/google-research/big_vision.
"""

import math

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, norms, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PreNormBlock
from zoo.layers.embeddings import PatchEmbed
from zoo.layers.mlp import MLP
from zoo.layers.positions import Learned
from zoo.layers.stack import stack
from zoo.models.clip import CLIP
from zoo.models.clip_towers import TextTower
from zoo.models.model import Model

PAPER = {
  "title": "Sigmoid Loss for Language Image Pre-Training",
  "authors": "Zhai et al.",
  "year": 2023,
  "url": "https://arxiv.org/abs/2303.15343",
}
# Of variants whose names begin so.
PAPERS = {
  "2-": {
    "title": "SigLIP 2: Multilingual Vision-Language Encoders with Improved Semantic Understanding, ...",
    "authors": "Tschannen et al.",
    "year": 2025,
    "url": "https://arxiv.org/abs/2502.14786",
  },
}
HEADS = (None, "classify")


class AttentionPool(nn.Module):
  """One trained query looks at all; what it gets passes a layer of its own. https://arxiv.org/abs/1810.00825"""

  attention: nn.Module
  norm: nn.Module
  mlp: nn.Module

  @nn.compact
  def __call__(self, x, *, valid=None, train=False):
    """[batch, length, dim], of which those are looked at that are valid, bool [batch, length] -> [batch, dim]"""
    query = self.param("embedding", initial.xavier_uniform(), (1, x.shape[-1])).astype(x.dtype)
    y = self.attention(jnp.broadcast_to(query[None], (x.shape[0], *query.shape)), x, valid=valid, train=train)
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
    x = nn.Dropout(self.dropout)(x + self.positions(x.shape[1]), deterministic=not train)
    x = self.norm(self.stack(x, train=train))
    return {"hidden": x} if self.pool is None else {"hidden": x, "embedded": self.pool(x, train=train)}


class ImageClassifier(Model):
  """The image tower alone, with classes."""

  image: nn.Module
  head: nn.Module
  image_size: int
  channels: int = 3

  def __call__(self, image, *, train=False):
    """Hidden states and class logits.

    Args:
      image: float [batch, image_size, image_size, channels]

    Returns:
      dict of "hidden" [batch, patches, dim] (normed), "logits" float32 [batch, num_classes], which are of the mean of
      the hidden states, and, by the pool, "pooled" [batch, dim].
    """
    sizes.image_fits(image, self.image_size, self.channels)
    found = self.image(image, train=train)
    out = {"hidden": found["hidden"], "logits": self.head(found["hidden"].mean(axis=1)).astype(jnp.float32)}
    return {**out, "pooled": found["embedded"]} if "embedded" in found else out

  @nn.nowrap
  def example(self, batch_size=1):
    return (jnp.zeros((batch_size, self.image_size, self.image_size, self.channels)),)


def at_end(tokens, valid):
  """The last place of the sequence, padding or not: texts are padded to one length, and so read at one place."""
  return jnp.full(tokens.shape[:1], tokens.shape[1] - 1)


def siglip(
  *,
  image_size: int,
  patch_size: int,
  image_dim: int,
  image_depth: int,
  image_heads: int,
  text_dim: int | None = None,
  text_depth: int | None = None,
  text_heads: int | None = None,
  vocab_size: int | None = None,
  max_length: int | None = None,
  head: str | None = None,
  num_classes: int | None = None,
  image_mlp_dim: int | None = None,
  text_mlp_dim: int | None = None,
  pool: bool = True,
  activation: str = "gelu_tanh",
  epsilon: float = 1e-6,
  channels: int = 3,
  dropout: float = 0.0,
  drop_path: float = 0.0,
  dtype: str | None = None,
  scan: bool | None = None,
  remat: str | None = None,
) -> CLIP | ImageClassifier:
  """A SigLIP of these sizes: a CLIP that is trained by the objective `sigmoid_contrastive`.

  head: None (both towers) or "classify" (the image tower with num_classes; sizes of the text tower are not needed).
  image_mlp_dim, text_mlp_dim: 4 * image_dim, 4 * text_dim if None.
  pool: whether an image tower that classifies also has the pooled output.
  epsilon: of the norms.
  """
  sizes.positive(image_size=image_size, patch_size=patch_size, image_depth=image_depth, channels=channels)
  sizes.rate(dropout=dropout)
  sizes.head_fits(head, HEADS, num_classes)
  if patch_size > image_size:
    raise ValueError(f"patch_size {patch_size} exceeds image_size {image_size}. Make it smaller.")
  dtype = sizes.compute_dtype(dtype)
  norm, xavier = norms.layer_norm(epsilon, dtype), initial.xavier_uniform()

  def attention(which, dim, num_heads):
    head_dim = sizes.head_dim(dim, num_heads, which)
    return Attention(num_heads, head_dim, dropout=dropout, dtype=dtype, kernel_init=xavier, out_init=xavier)

  def feed_forward(dim, mlp_dim):
    return MLP(mlp_dim or 4 * dim, activation, dropout=dropout, dtype=dtype, kernel_init=xavier, down_init=xavier)

  def encoder(which, dim, depth, num_heads, mlp_dim):
    block = PreNormBlock(attention(which, dim, num_heads), feed_forward(dim, mlp_dim), norm, dropout=dropout)
    return dict(stack=stack(block, depth, scan=scan, remat=remat, drop_path=drop_path), norm=norm.copy())

  pooled = AttentionPool(
    attention("image_", image_dim, image_heads), norm.copy(), feed_forward(image_dim, image_mlp_dim)
  )
  image = ImageTower(
    patches=PatchEmbed(patch_size, image_dim, dtype=dtype),
    positions=Learned(
      (image_size // patch_size) ** 2, image_dim, dtype=dtype, embedding_init=initial.normal(image_dim**-0.5)
    ),
    pool=pooled if pool or head is None else None,
    dropout=dropout,
    **encoder("image_", image_dim, image_depth, image_heads, image_mlp_dim),
  )
  if num_classes is not None:
    classes = nn.Dense(num_classes, dtype=dtype, kernel_init=initial.normal(image_dim**-0.5))
    return ImageClassifier(image=image, head=classes, image_size=image_size, channels=channels)
  if text_dim is None or text_depth is None or text_heads is None or vocab_size is None or max_length is None:
    raise ValueError(
      "text_dim, text_depth, text_heads, vocab_size and max_length are needed. Only the head 'classify' does without."
    )
  sizes.positive(text_dim=text_dim, text_depth=text_depth, vocab_size=vocab_size, max_length=max_length)
  width = initial.normal(text_dim**-0.5)
  text = TextTower(
    embed=nn.Embed(vocab_size, text_dim, dtype=dtype, embedding_init=width),
    positions=Learned(max_length, text_dim, dtype=dtype, embedding_init=width),
    projection=nn.Dense(image_dim, dtype=dtype, kernel_init=initial.lecun_normal()),
    read_at=at_end,
    dropout=dropout,
    **encoder("text_", text_dim, text_depth, text_heads, text_mlp_dim),
  )
  # Section 3.2: t' = log 10 and b = -10, so that training begins near the prior that hardly any pair matches.
  return CLIP(
    image=image, text=text, image_size=image_size, channels=channels, logit_scale=math.log(10), logit_bias=-10.0
  )


# The released models; towers of table 1 of https://arxiv.org/abs/2305.13035 and table 2 of 2106.04560.
_BASE = dict(
  patch_size=16,
  image_dim=768,
  image_depth=12,
  image_heads=12,
  text_dim=768,
  text_depth=12,
  text_heads=12,
  max_length=64,
)
_LARGE = dict(
  patch_size=16, image_dim=1024, image_depth=24, image_heads=16, text_dim=1024, text_depth=24, text_heads=16,
  max_length=64,
)  # fmt: skip
_SO400M = dict(
  **dict(patch_size=14, image_dim=1152, image_depth=27, image_heads=16, image_mlp_dim=4304),
  **dict(text_dim=1152, text_depth=27, text_heads=16, text_mlp_dim=4304, max_length=64),
)
VARIANTS = {
  "B/16": dict(image_size=224, vocab_size=32000, **_BASE),
  "L/16": dict(image_size=256, vocab_size=32000, **_LARGE),
  "So400m/14": dict(image_size=384, vocab_size=32000, **_SO400M),
  "2-B/16": dict(image_size=224, vocab_size=256000, **_BASE),
  "2-L/16": dict(image_size=256, vocab_size=256000, **_LARGE),
  "2-So400m/14": dict(image_size=224, vocab_size=256000, **_SO400M),
}
