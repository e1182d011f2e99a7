"""CLIP: Learning Transferable Visual Models From Natural Language Supervision (Radford et al., 2021).

https://arxiv.org/abs/2103.00020. Code: https://github.com/openai/CLIP. With `logit_bias`, a model for the sigmoid loss,
https://arxiv.org/abs/2303.15343.
"""

from collections.abc import Sequence
from typing import Any, Unpack

from zoo.layers import sizes
from zoo.layers.compute import Compute
from zoo.models import clip_text, clip_vision
from zoo.models.clip_text import PAPER as PAPER
from zoo.models.dual_encoder import DualEncoder


def clip(
  *,
  image_size: int,
  patch_size: int,
  image_dim: int,
  image_depth: int,
  image_heads: int,
  text_dim: int,
  text_depth: int,
  text_heads: int,
  embed_dim: int,
  vocab_size: int,
  max_length: int,
  eos: int | None = None,
  read_at: str = "end",
  image_mlp_dim: int | None = None,
  text_mlp_dim: int | None = None,
  activation: str = "quick_gelu",
  epsilon: float = 1e-5,
  channels: int = 3,
  stem_dims: Sequence[int] = (),
  logit_bias: float | None = None,
  **options: Unpack[Compute],
) -> DualEncoder:
  """A CLIP of these sizes.

  eos: the end-of-text token; the last of the vocabulary if None.
  read_at: the token whose state is pooled: "end" (the first eos, else the last valid token), or as elsewhere "eos" (the
    first eos, else the first token) or "largest" (the token with the largest id).
  image_mlp_dim, text_mlp_dim: 4 * image_dim, 4 * text_dim if None.
  epsilon: of the norms.
  logit_bias: initial value of the sigmoid loss's bias.
  stem_dims: widths of convolutions before the patches, each halving the resolution, for few and small images.
  """
  sizes.positive(embed_dim=embed_dim)
  common: dict[str, Any] = dict(embed_dim=embed_dim, activation=activation, epsilon=epsilon, **options)
  image = clip_vision.tower(
    image_size=image_size,
    patch_size=patch_size,
    channels=channels,
    stem_dims=stem_dims,
    dim=image_dim,
    depth=image_depth,
    num_heads=image_heads,
    mlp_dim=image_mlp_dim,
    which="image_",
    **common,
  )
  text = clip_text.tower(
    vocab_size=vocab_size,
    max_length=max_length,
    eos=eos,
    read_at=read_at,
    dim=text_dim,
    depth=text_depth,
    num_heads=text_heads,
    mlp_dim=text_mlp_dim,
    which="text_",
    **common,
  )
  return DualEncoder(image=image, text=text, logit_bias=logit_bias)


# Table 20 of the paper.
_TEXT = dict(text_depth=12, vocab_size=49408, max_length=77)
_BASE = dict(
  image_size=224, image_dim=768, image_depth=12, image_heads=12, text_dim=512, text_heads=8, embed_dim=512, **_TEXT
)
_LARGE = dict(
  image_size=224, image_dim=1024, image_depth=24, image_heads=16, text_dim=768, text_heads=12, embed_dim=768, **_TEXT
)
VARIANTS = {
  "ViT-B/32": dict(patch_size=32, **_BASE),
  "ViT-B/16": dict(patch_size=16, **_BASE),
  "ViT-L/14": dict(patch_size=14, **_LARGE),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "ViT-B/32": 151_277_313,
  "ViT-B/16": 149_620_737,
  "ViT-L/14": 427_616_513,
}
