"""CLIP: Learning Transferable Visual Models From Natural Language Supervision (Radford et al., 2021).

https://arxiv.org/abs/2103.00020. Code: https://github.com/openai/CLIP. With `logit_bias`, a model for the sigmoid loss,
https://arxiv.org/abs/2303.15343.
"""

from collections.abc import Sequence
from typing import Annotated, Any, TypedDict, Unpack

from zoo.layers import initial, sizes
from zoo.layers.compute import Compute, resolve
from zoo.layers.dense import Dense
from zoo.models import clip_text, clip_vision
from zoo.models.clip_text import PAPER as PAPER
from zoo.models.clip_vision import ImageClassifier
from zoo.models.dual_encoder import DualEncoder

HEADS = (None, "classify")


class CLIPSizes(TypedDict, total=False):
  """Options of CLIP.

  text_dim, text_depth, text_heads, vocab_size, max_length: of the text tower.
  embed_dim: of the space of both towers.
  eos: the end-of-text token; the last of the vocabulary if None.
  read_at: the token whose state is pooled: "end" (the first eos, else the last valid token), or as elsewhere "eos" (the
    first eos, else the first token) or "largest" (the token with the largest id).
  head: None (both towers) or "classify" (the image tower with num_classes, from the mean of its patches; embed_dim and
    sizes of the text tower are not needed).
  image_mlp_dim, text_mlp_dim: 4 * image_dim, 4 * text_dim if None.
  epsilon: of the norms.
  logit_bias: initial value of the sigmoid loss's bias.
  stem_dims: widths of convolutions before the patches, each halving the resolution, for few and small images.
  """

  text_dim: Annotated[int | None, None]
  text_depth: Annotated[int | None, None]
  text_heads: Annotated[int | None, None]
  embed_dim: Annotated[int | None, None]
  vocab_size: Annotated[int | None, None]
  max_length: Annotated[int | None, None]
  eos: Annotated[int | None, None]
  read_at: Annotated[str, "end"]
  head: Annotated[str | None, None]
  num_classes: Annotated[int | None, None]
  image_mlp_dim: Annotated[int | None, None]
  text_mlp_dim: Annotated[int | None, None]
  activation: Annotated[str, "quick_gelu"]
  epsilon: Annotated[float, 1e-5]
  channels: Annotated[int, 3]
  stem_dims: Annotated[Sequence[int], ()]
  logit_bias: Annotated[float | None, None]


class CLIPOptions(CLIPSizes, Compute):
  """Options of `clip`."""


def clip(
  *,
  image_size: int,
  patch_size: int,
  image_dim: int,
  image_depth: int,
  image_heads: int,
  **options: Unpack[CLIPOptions],
) -> DualEncoder | ImageClassifier:
  """A CLIP of these sizes; `options` as of `CLIPSizes` and `zoo.layers.compute.Compute`."""
  common = resolve(CLIPOptions, options)
  sizes.head_fits(common.head, HEADS, common.num_classes)
  shared: dict[str, Any] = {name: getattr(common, name) for name in ("activation", "epsilon", *Compute.__annotations__)}
  image: dict[str, Any] = dict(image_size=image_size, patch_size=patch_size, dim=image_dim, depth=image_depth)
  image |= dict(num_heads=image_heads, mlp_dim=common.image_mlp_dim, channels=common.channels, which="image_")
  image |= dict(stem_dims=common.stem_dims, **shared)
  if common.num_classes is not None:
    init = initial.normal(image_dim**-0.5)
    head = Dense(common.num_classes, dtype=common.dtype, kernel_init=init)
    return ImageClassifier(image=clip_vision.tower(**image), head=head)
  text: dict[str, Any] = dict(dim=common.text_dim, depth=common.text_depth, num_heads=common.text_heads)
  text |= dict(vocab_size=common.vocab_size, max_length=common.max_length, embed_dim=common.embed_dim)
  if None in text.values():
    raise ValueError(
      "text_dim, text_depth, text_heads, vocab_size, max_length and embed_dim are needed. Only head 'classify' needs "
      "none of them."
    )
  sizes.positive(embed_dim=common.embed_dim)
  text |= dict(eos=common.eos, read_at=common.read_at, mlp_dim=common.text_mlp_dim, which="text_", **shared)
  towers = clip_vision.tower(embed_dim=common.embed_dim, **image), clip_text.tower(**text)
  return DualEncoder(image=towers[0], text=towers[1], logit_bias=common.logit_bias)


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
