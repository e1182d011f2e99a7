"""Base classes of models."""

import dataclasses
import json
from typing import Any, ClassVar

import flax.linen as nn

from zoo.layers.mixed_precision import pick


class Model(nn.Module, kw_only=True):
  """Base class of models: a module with its spec, its preprocessing and example inputs."""

  # A JSON string, as a dict has no hash; not compared: models with equal parts are equal.
  spec_json: str = dataclasses.field(default="{}", compare=False, repr=False)
  preprocessing_json: str = dataclasses.field(default="{}", compare=False, repr=False)

  @property
  def carries(self):
    """Collections carried across batches, {name: "shared" or "rows"}: shared by all rows, as batch statistics,

    or with the leading axis batch in every module, as a memory. Training keeps them in its state; the shared ones are
    saved with the parameters, while outside of training a model is called without those of rows. Layers in a
    scan carry theirs as those in a loop do.
    """
    return {}

  @property
  def spec(self):
    """{"family", "variant", **sizes} from `zoo.build`; {} if the factory was called directly."""
    return json.loads(self.spec_json)

  @property
  def preprocessing(self):
    """The preprocessing of images, sounds and texts, see `zoo.preprocessing`. `apply` takes preprocessed inputs."""
    return json.loads(self.preprocessing_json)

  @property
  def image_shape(self):
    """(height, width, channels) that every image must have; None if images may differ, or there are none."""
    size = getattr(self, "image_size", None)
    return None if size is None else (size, size, self.channels)

  @property
  def decodes(self):
    """Whether the model predicts next tokens, so that `zoo.generate` can use it."""
    return False

  @nn.nowrap
  def trunk(self):
    """The model without the head that predicts tokens, `to_logits`; None: it predicts none.

    It takes the same parameters and returns "hidden", [batch, length, dim], in place of a logit for every token of the
    vocabulary; if the model returns only logits, it returns only the hidden states.
    """
    return None

  def to_logits(self, x):
    """Applies the head that predicts tokens: [batch, length, dim] -> float32 [batch, length, vocab_size]"""
    raise NotImplementedError

  @nn.nowrap
  def example(self, batch_size=1):
    """Example inputs with valid shapes and dtypes, as a tuple: `model.init(rng, *model.example())`."""
    raise NotImplementedError(f"{type(self).__name__} has no example(batch_size). Return a tuple of inputs from it.")


class PredictsTokens(Model, kw_only=True):
  """Mixin of models with a next-token head, the field `logits`; without the head it is a trunk.

  The head is called with hidden states and `output_embed`, as in `zoo.layers.heads`.
  """

  HEAD: ClassVar[tuple[str, str]] = ("logits", "lm")  # The field, and its head's name in factories.

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
    """`to_logits` at the positions `predict`, int32 [batch, k]; at all if None."""
    return self.to_logits(x if predict is None else pick(x, predict))


class PredictsMaskedTokens(PredictsTokens, kw_only=True):
  """Mixin of models with a masked-token head, the field `mlm`."""

  HEAD = ("mlm", "mlm")
  mlm: nn.Module | None = None

  def masked_tokens(self, x, predict):
    """{"mlm": float32 [batch, length or k, vocab_size]}, {} without the head."""
    return {} if self.mlm is None else {"mlm": self.logits_at(x, predict)}
