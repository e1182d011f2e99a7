"""SigLIP 2: Multilingual Vision-Language Encoders (Tschannen et al., 2025), NaFlex: images of any shape.

https://arxiv.org/abs/2502.14786. Code: https://github.com/google-research/big_vision. SigLIP 2 of one resolution is a
`siglip`.
"""

from typing import Unpack

from zoo.models import siglip2_vision
from zoo.models.clip_vision import ImageClassifier
from zoo.models.dual_encoder import DualEncoder
from zoo.models.siglip import SigLIPOptions, dual_encoder
from zoo.models.siglip2_vision import PAPER as PAPER


def siglip2(
  *,
  image_size: int,
  patch_size: int,
  image_dim: int,
  image_depth: int,
  image_heads: int,
  **options: Unpack[SigLIPOptions],
) -> DualEncoder | ImageClassifier:
  """A SigLIP 2 for images of any shape (`zoo.models.siglip2_vision.FlexTower`); arguments as `zoo.models.siglip`.

  image_size: the square image size whose patches have one position each; a multiple of patch_size.
  """
  image = dict(image_size=image_size, patch_size=patch_size, dim=image_dim, depth=image_depth, num_heads=image_heads)
  return dual_encoder(siglip2_vision.tower, image, **options)


# Table 1 of the paper; positions of the releases are those of 16 x 16 patches.
_BOTH = dict(image_size=256, patch_size=16, vocab_size=256000, max_length=64)
VARIANTS = {
  "B/16-naflex": dict(
    **dict(image_dim=768, image_depth=12, image_heads=12, text_dim=768, text_depth=12, text_heads=12), **_BOTH
  ),
  "So400m/16-naflex": dict(
    **dict(image_dim=1152, image_depth=27, image_heads=16, image_mlp_dim=4304),
    **dict(text_dim=1152, text_depth=27, text_heads=16, text_mlp_dim=4304),
    **_BOTH,
  ),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "B/16-naflex": 375_234_050,
  "So400m/16-naflex": 1_135_670_962,
}
