"""SigLIP's text tower alone, and SigLIP 2's, which is the same. https://arxiv.org/abs/2303.15343"""

from zoo.layers import sizes
from zoo.models.clip_text import CLIPText
from zoo.models.siglip import PAPER as PAPER
from zoo.models.siglip import PAPERS as PAPERS
from zoo.models.siglip_towers import text_tower


def siglip_text(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int | None = None,
  embed_dim: int | None = None,
  activation: str = "gelu_tanh",
  epsilon: float = 1e-6,
  dropout: float = 0.0,
  drop_path: float = 0.0,
  dtype: str | None = None,
  scan: bool | None = None,
  remat: str | None = None,
) -> CLIPText:
  """A text tower of these sizes, which reads a text at its last place, padding or not: pad to one length.

  mlp_dim, embed_dim: 4 * dim, dim if None.
  """
  sizes.positive(embed_dim=embed_dim)
  return CLIPText(
    text=text_tower(
      vocab_size=vocab_size,
      max_length=max_length,
      dim=dim,
      depth=depth,
      num_heads=num_heads,
      mlp_dim=mlp_dim,
      embed_dim=embed_dim or dim,
      activation=activation,
      epsilon=epsilon,
      dropout=dropout,
      drop_path=drop_path,
      dtype=dtype,
      scan=scan,
      remat=remat,
    )
  )


# The towers of zoo/models/siglip.py's; those of SigLIP 2 for images of any shape are among them.
_BASE = dict(max_length=64, dim=768, depth=12, num_heads=12)
_LARGE = dict(max_length=64, dim=1024, depth=24, num_heads=16)
_SO400M = dict(max_length=64, dim=1152, depth=27, num_heads=16, mlp_dim=4304)
VARIANTS = {
  "B": dict(vocab_size=32000, **_BASE),
  "L": dict(vocab_size=32000, **_LARGE),
  "So400m": dict(vocab_size=32000, **_SO400M),
  "2-B": dict(vocab_size=256000, **_BASE),
  "2-L": dict(vocab_size=256000, **_LARGE),
  "2-So400m": dict(vocab_size=256000, **_SO400M),
}
# How many each has: what `list_models` prints.
PARAMETERS = {
  "B": 110_271_744,
  "L": 336_194_560,
  "So400m": 449_734_896,
  "2-B": 282_303_744,
  "2-L": 565_570_560,
  "2-So400m": 707_782_896,
}
