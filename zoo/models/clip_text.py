"""CLIP's text tower alone: what text-to-image models condition on. https://arxiv.org/abs/2103.00020"""

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import sizes
from zoo.models.clip import PAPER as PAPER
from zoo.models.clip_towers import text_tower
from zoo.models.model import Model


class CLIPText(Model):
  """See `zoo.models.clip.TextTower`."""

  text: nn.Module

  def __call__(self, tokens, *, valid=None, train=False):
    """Hidden states, the state that stands for the text, and its projection.

    Args:
      tokens: int32 [batch, length]
      valid: bool [batch, length], True = a real token; the published models were trained without.

    Returns:
      dict of "hidden" [batch, length, dim] (normed), "pooled" [batch, dim] and, with embed_dim, "embedded" [batch,
      embed_dim] (not of unit length)
    """
    sizes.tokens_fit(tokens)
    return self.text(tokens, valid=valid, train=train)

  @property
  def max_length(self):
    return self.text.positions.max_length

  @nn.nowrap
  def example(self, batch_size=1):
    return (jnp.zeros((batch_size, min(self.max_length, 8)), jnp.int32),)


def clip_text(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int | None = None,
  embed_dim: int | None = None,
  eos: int | None = None,
  read_at: str = "end",
  activation: str = "quick_gelu",
  epsilon: float = 1e-5,
  dropout: float = 0.0,
  drop_path: float = 0.0,
  dtype: str | None = None,
  scan: bool | None = None,
  remat: str | None = None,
) -> CLIPText:
  """A text tower of these sizes; no projection if embed_dim is None; the rest as `zoo.models.clip.clip` has it."""
  sizes.positive(embed_dim=embed_dim)
  return CLIPText(
    text=text_tower(
      vocab_size=vocab_size,
      max_length=max_length,
      eos=eos,
      read_at=read_at,
      dim=dim,
      depth=depth,
      num_heads=num_heads,
      mlp_dim=mlp_dim,
      embed_dim=embed_dim,
      activation=activation,
      epsilon=epsilon,
      dropout=dropout,
      drop_path=drop_path,
      dtype=dtype,
      scan=scan,
      remat=remat,
    )
  )


_TEXT = dict(vocab_size=49408, max_length=77, depth=12)
VARIANTS = {
  "ViT-B": dict(dim=512, num_heads=8, embed_dim=512, **_TEXT),
  "ViT-L": dict(dim=768, num_heads=12, embed_dim=768, **_TEXT),
}
# How many each has: what `list_models` prints.
PARAMETERS = {
  "ViT-B": 63_428_096,
  "ViT-L": 123_650_304,
}
