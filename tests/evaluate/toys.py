"""In-memory records, and models with known outputs."""

import numpy as np

from zoo.data.pipeline import Records


class Toy(Records):
  """The rows of `columns` as examples."""

  def __init__(self, captions=(), info=None, **columns):
    self.columns = {name: np.asarray(column) for name, column in columns.items()}
    self.captions, self.info = list(captions), info or {}

  def __len__(self):
    return len(next(iter(self.columns.values())))

  def example(self, index, rng=None):
    if not 0 <= index < len(self):
      raise IndexError(index)
    return {name: column[index] for name, column in self.columns.items()}

  def caption(self, index, number=0):
    return self.captions[index]


class Towers:
  """An image is its mean colour, a text is the row of params["text"] that its first token names: not unit vectors."""

  encode_image = encode_text = True

  def apply(self, variables, inputs, *, valid=None, method):
    if method == "encode_image":
      return inputs.mean((1, 2)) @ variables["params"]["image"]
    assert method == "encode_text"
    return variables["params"]["text"][inputs[:, 0]]
