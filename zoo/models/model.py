"""What every family's top module has in common."""

import dataclasses
import json

import flax.linen as nn


class Model(nn.Module, kw_only=True):
  """A module that knows how it was built and what it eats."""

  # JSON text, for a dict has no hash; not compared: models of equal parts are equal however they were asked for.
  spec_json: str = dataclasses.field(default="{}", compare=False, repr=False)
  preprocessing_json: str = dataclasses.field(default="{}", compare=False, repr=False)

  @property
  def carries(self):
    """Collections that travel from batch to batch, {name: "shared" or "rows"}: shared by all rows, as statistics are,

    or with the leading axis batch, as a memory. Training keeps them in its state; what is shared is saved with the
    parameters.
    """
    return {}

  @property
  def spec(self):
    """{"family", "variant", **sizes} that `zoo.build` made this model from; {} if a factory was called directly."""
    return json.loads(self.spec_json)

  @property
  def preprocessing(self):
    """How images, sounds and texts become inputs, as `zoo.preprocessing` has it. `apply` takes what is ready."""
    return json.loads(self.preprocessing_json)

  @property
  def image_shape(self):
    """(height, width, channels) that every image must have; None if images may differ, or there are none."""
    size = getattr(self, "image_size", None)
    return None if size is None else (size, size, self.channels)

  @property
  def decodes(self):
    """Whether it predicts the next token from those before it, so that `zoo.generate` can use it."""
    return False

  @nn.nowrap
  def trunk(self):
    """The same model without the head that predicts tokens, which is `to_logits`; None: it predicts none.

    It takes the same parameters and gives "hidden", [batch, length, dim], in place of a logit for every token of the
    vocabulary; where the model gives nothing but logits, it gives nothing but the hidden states.
    """
    return None

  def to_logits(self, x):
    """What the head that predicts tokens makes of hidden states: [batch, length, dim] -> float32 [.., vocab_size]"""
    raise NotImplementedError

  @nn.nowrap
  def example(self, batch_size=1):
    """Inputs of the right shapes and types, as a tuple: `model.init(rng, *model.example())`."""
    raise NotImplementedError
