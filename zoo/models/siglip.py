"""SigLIP: Sigmoid Loss for Language Image Pre-Training (Zhai et al., 2023), and SigLIP 2 at fixed resolutions.

https://arxiv.org/abs/2303.15343, https://arxiv.org/abs/2502.14786. Code: https://github.com/google-research/big_vision.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any, TypedDict, Unpack

from zoo.layers import initial, sizes
from zoo.layers.compute import Compute, resolve
from zoo.layers.dense import Dense
from zoo.models import siglip_text, siglip_vision
from zoo.models.clip_vision import ImageClassifier
from zoo.models.dual_encoder import DualEncoder
from zoo.models.siglip_vision import PAPER as PAPER
from zoo.models.siglip_vision import PAPERS as PAPERS

HEADS = (None, "classify")


class SigLIPSizes(TypedDict, total=False):
  """Options of SigLIP and SigLIP 2.

  text_dim, text_depth, text_heads, vocab_size, max_length: of the text tower.
  head: None (both towers) or "classify" (the image tower with num_classes; sizes of the text tower are not needed).
  image_mlp_dim, text_mlp_dim: 4 * image_dim, 4 * text_dim if None.
  pool: whether an image tower that classifies also has the pooled output.
  epsilon: of the norms.
  """

  text_dim: Annotated[int | None, None]
  text_depth: Annotated[int | None, None]
  text_heads: Annotated[int | None, None]
  vocab_size: Annotated[int | None, None]
  max_length: Annotated[int | None, None]
  head: Annotated[str | None, None]
  num_classes: Annotated[int | None, None]
  image_mlp_dim: Annotated[int | None, None]
  text_mlp_dim: Annotated[int | None, None]
  pool: Annotated[bool, True]
  activation: Annotated[str, "gelu_tanh"]
  epsilon: Annotated[float, 1e-6]
  channels: Annotated[int, 3]


class SigLIPOptions(SigLIPSizes, Compute):
  """Options that the factories of SigLIP and SigLIP 2 pass on to `dual_encoder`."""


def siglip(
  *,
  image_size: int,
  patch_size: int,
  image_dim: int,
  image_depth: int,
  image_heads: int,
  **options: Unpack[SigLIPOptions],
) -> DualEncoder | ImageClassifier:
  """A SigLIP of these sizes, for training with the objective `sigmoid_contrastive`.

  `options` as of `SigLIPSizes` and `zoo.layers.compute.Compute`.
  """
  image = dict(image_size=image_size, patch_size=patch_size, dim=image_dim, depth=image_depth, num_heads=image_heads)
  return dual_encoder(siglip_vision.tower, image, **options)


def dual_encoder(tower: Callable, image: dict[str, Any], **options: Unpack[SigLIPOptions]) -> Any:
  """Builds the dual encoder, or with the head "classify" the image classifier.

  tower: builds the image tower, like `zoo.models.siglip_vision.tower`.
  image: its sizes.
  """
  common = resolve(SigLIPOptions, options)
  sizes.head_fits(common.head, HEADS, common.num_classes)
  shared: dict[str, Any] = {name: getattr(common, name) for name in ("activation", "epsilon", *Compute.__annotations__)}
  pooled: dict[str, Any] = dict(mlp_dim=common.image_mlp_dim, pool=common.pool or common.head is None)
  image_tower = tower(**image, **pooled, channels=common.channels, which="image_", **shared)
  if common.num_classes is not None:
    init = initial.normal(image["dim"] ** -0.5)
    return ImageClassifier(image=image_tower, head=Dense(common.num_classes, dtype=common.dtype, kernel_init=init))
  text: dict[str, Any] = dict(dim=common.text_dim, depth=common.text_depth, num_heads=common.text_heads)
  text |= dict(vocab_size=common.vocab_size, max_length=common.max_length)
  if None in text.values():
    raise ValueError(
      "text_dim, text_depth, text_heads, vocab_size and max_length are needed. Only head 'classify' needs none of them."
    )
  text |= dict(mlp_dim=common.text_mlp_dim, embed_dim=image["dim"], which="text_")
  # Section 3.2: t' = log 10 and b = -10, so that training begins near the prior that hardly any pair matches.
  start: dict[str, Any] = dict(logit_scale=math.log(10), logit_bias=-10.0)
  return DualEncoder(image=image_tower, text=siglip_text.tower(**text, **shared), **start)


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
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "B/16": 203_155_970,
  "L/16": 652_150_786,
  "So400m/14": 877_960_498,
  "2-B/16": 375_187_970,
  "2-L/16": 881_526_786,
  "2-So400m/14": 1_135_463_602,
}
