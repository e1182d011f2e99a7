"""Attention patterns over the tokens of an image in raster order, after those of a text: DALL-E's.

https://arxiv.org/abs/2102.12092, appendix B.1. There an image's tokens also see the text,
`GlobalTokens(range(first), sees=False)`, and nothing sees what follows it, `& Window(None, 0)`:

>>> import numpy as np
>>> from zoo.layers.patterns import GlobalTokens
>>> text = GlobalTokens(range(4), sees=False)
>>> row = (text | Rows(width=3, first=4)) & Window(None, 0)
>>> row(np.array([[8]]), np.arange(13)[None])
array([[ True,  True,  True,  True, False, False, False,  True,  True, False, False, False, False]])
"""

import dataclasses

from zoo.layers.patterns import Pattern, Window, ints


@dataclasses.dataclass(frozen=True)
class Rows(Pattern):
  """Tokens of one row of an image see each other; `first` tokens before the image see nothing by this pattern.

  Args:
    width: tokens in a row of the image.
    first: position of the image's first token.
  """

  width: int
  first: int = 0

  def __post_init__(self):
    ints(width=self.width, least=1)
    ints(first=self.first, least=0)

  def __call__(self, query_positions, key_positions):
    query, key, inside = _in_image(self.first, query_positions, key_positions)
    return inside & (query // self.width == key // self.width)


@dataclasses.dataclass(frozen=True)
class Columns(Rows):
  """Tokens of one column of an image see each other; as `Rows`."""

  def __call__(self, query_positions, key_positions):
    query, key, inside = _in_image(self.first, query_positions, key_positions)
    return inside & (query % self.width == key % self.width)


@dataclasses.dataclass(frozen=True)
class Convolution(Rows):
  """Tokens of an image see the kernel x kernel square around them, every `dilation`-th row and column; as `Rows`.

  Args:
    kernel: rows and columns of the square; odd.
  """

  kernel: int = 3
  dilation: int = 1

  def __post_init__(self):
    super().__post_init__()
    ints(kernel=self.kernel, dilation=self.dilation, least=1)
    if self.kernel % 2 == 0:
      raise ValueError(f"kernel is {self.kernel}. It must be odd, with the token in its middle: {self.kernel + 1}.")

  def __call__(self, query_positions, key_positions):
    query, key, inside = _in_image(self.first, query_positions, key_positions)
    near = Window(*[self.kernel // 2 * self.dilation] * 2, self.dilation)
    return inside & near(query // self.width, key // self.width) & near(query % self.width, key % self.width)


def _in_image(first, query_positions, key_positions):
  """Positions counted from an image's first token, and whether both are in it."""
  query, key = query_positions - first, key_positions - first
  return query, key, (query >= 0) & (key >= 0)
