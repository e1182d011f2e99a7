"""What every family's top module has in common."""

import dataclasses
import json

import flax.linen as nn


class Model(nn.Module, kw_only=True):
  """A module that knows how it was built and what it eats."""

  # JSON text, for a dict has no hash; not compared: models of equal parts are equal however they were asked for.
  spec_json: str = dataclasses.field(default="{}", compare=False, repr=False)

  @property
  def spec(self):
    """{"family", "variant", **sizes} that `zoo.build` made this model from; {} if a factory was called directly."""
    return json.loads(self.spec_json)

  @property
  def decodes(self):
    """Whether it predicts the next token from those before it, so that `zoo.generate` can use it."""
    return False

  @nn.nowrap
  def example(self, batch_size=1):
    """Inputs of the right shapes and types, as a tuple: `model.init(rng, *model.example())`."""
    raise NotImplementedError
