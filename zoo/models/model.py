"""What every family's top module has in common."""

import dataclasses
import json
from typing import Any, ClassVar

import flax.linen as nn

from zoo.layers.mixed_precision import pick


class Model(nn.Module, kw_only=True):
  """A module that knows how it was built and what it eats."""

  # JSON text, for a dict has no hash; not compared: models of equal parts are equal however they were asked for.
  spec_json: str = dataclasses.field(default="{}", compare=False, repr=False)
  preprocessing_json: str = dataclasses.field(default="{}", compare=False, repr=False)

  @property
  def carries(self):
    """Collections that travel from batch to batch, {name: "shared" or "rows"}: shared by all rows, as statistics are,

    or with the leading axis batch in every module, as a memory. Training keeps them in its state; what is shared is
    saved with the parameters, while outside of training a model is called without what belongs to rows. Layers in a
    scan carry theirs as those in a loop do.
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


class PredictsTokens(Model, kw_only=True):
  """A model whose field `logits` is the head that predicts the next token; without the head it is a trunk.

  The head is called with hidden states and `output_embed`, as those of `zoo.layers.heads` are.
  """

  HEAD: ClassVar[tuple[str, str]] = ("logits", "lm")  # The field, and what factories call the head.

  @property
  def output_embed(self):
    """The embedding that the head may be tied to."""
    return getattr(self, "embed", None)

  @property
  def vocab_size(self):
    return self.output_embed.num_embeddings

  @property
  def decodes(self):
    return getattr(self, "logits", None) is not None

  @nn.nowrap
  def trunk(self):
    headless: Any = {self.HEAD[0]: None}
    return None if getattr(self, self.HEAD[0]) is None else self.clone(**headless)

  def to_logits(self, x):
    head = getattr(self, self.HEAD[0])
    if head is None:
      raise ValueError(
        f"This model does not predict tokens. Build it with head={self.HEAD[1]!r}, or use the model whose trunk this "
        "is."
      )
    return head(x, self.output_embed)

  def logits_at(self, x, predict=None):
    """`to_logits` of the tokens at `predict`, int32 [batch, k]; of all if None."""
    return self.to_logits(x if predict is None else pick(x, predict))


class PredictsMaskedTokens(PredictsTokens, kw_only=True):
  """A model whose field `mlm` is the head that predicts masked tokens."""

  HEAD = ("mlm", "mlm")
  mlm: nn.Module | None = None

  def masked_tokens(self, x, predict):
    """{"mlm": float32 [batch, length or k, vocab_size]}, {} without the head."""
    return {} if self.mlm is None else {"mlm": self.logits_at(x, predict)}
