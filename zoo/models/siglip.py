"""SigLIP: Sigmoid Loss for Language Image Pre-Training (Zhai et al., 2023), and SigLIP 2 at fixed resolutions.

https://arxiv.org/abs/2303.15343, https://arxiv.org/abs/2502.14786. Code: https://github.com/google-research/big_vision.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, sizes
from zoo.layers.dense import Dense
from zoo.models.clip import CLIP
from zoo.models.model import Model
from zoo.models.siglip_towers import image_tower, text_tower

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
  sizes.head_fits(head, HEADS, num_classes)
  common: dict[str, Any] = dict(
    activation=activation,
    epsilon=epsilon,
    dropout=dropout,
    drop_path=drop_path,
    dtype=dtype,
    scan=scan,
    remat=remat,
  )
  image = image_tower(
    image_size=image_size,
    patch_size=patch_size,
    channels=channels,
    dim=image_dim,
    depth=image_depth,
    num_heads=image_heads,
    mlp_dim=image_mlp_dim,
    pool=pool or head is None,
    which="image_",
    **common,
  )
  if num_classes is not None:
    kind = sizes.compute_dtype(dtype)
    classes = Dense(num_classes, dtype=kind, kernel_init=initial.normal(image_dim**-0.5))
    return ImageClassifier(image=image, head=classes, image_size=image_size, channels=channels)
  if text_dim is None or text_depth is None or text_heads is None or vocab_size is None or max_length is None:
    raise ValueError(
      "text_dim, text_depth, text_heads, vocab_size and max_length are needed. Only the head 'classify' does without."
    )
  text = text_tower(
    vocab_size=vocab_size,
    max_length=max_length,
    dim=text_dim,
    depth=text_depth,
    num_heads=text_heads,
    mlp_dim=text_mlp_dim,
    embed_dim=image_dim,
    which="text_",
    **common,
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
# How many each has: what `list_models` prints.
PARAMETERS = {
  "B/16": 203_155_970,
  "L/16": 652_150_786,
  "So400m/14": 877_960_498,
  "2-B/16": 375_187_970,
  "2-L/16": 881_526_786,
  "2-So400m/14": 1_135_463_602,
}
