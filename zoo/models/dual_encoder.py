"""Dual encoder: an image tower and a text tower into one space, as in CLIP and SigLIP."""

import math

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, sizes
from zoo.models.model import Model


class DualEncoder(Model):
  """Two towers into one space of unit vectors, and a logit scale.

  Args:
    image: a `zoo.models.clip_vision.ImageTower`.
    text: like `zoo.models.clip_text.TextTower`: called with tokens, valid and train, and has a `max_length`.
    logit_scale, logit_bias: initial values; None: there is no bias. The default scale is that of the CLIP paper;
      clamping it to 100 is left to training.
  """

  image: nn.Module
  text: nn.Module
  logit_scale: float = math.log(1 / 0.07)
  logit_bias: float | None = None

  def setup(self):
    self.scale = self.param("logit_scale", initial.constant(self.logit_scale), ())
    if self.logit_bias is not None:
      self.bias = self.param("logit_bias", initial.constant(self.logit_bias), ())

  def __call__(self, image, tokens, *, valid=None, train=False):
    """Embeds images and texts, for logits = scale * image @ text.T [+ bias].

    Args:
      image: float [batch, image_size, image_size, channels], or what else the image tower takes.
      tokens: int32 [batch, length]
      valid: bool [batch, length], True = a real token; CLIP needs it only where padding precedes the end of a text.

    Returns:
      dict of "image", "text" [batch, embed_dim] of unit length, "scale" = exp(logit_scale) and, if the model was built
      with a logit_bias, "bias": scalars. All are float32.
    """
    image, text = self.encode_image(image, train=train), self.encode_text(tokens, valid=valid, train=train)
    out = {"image": image, "text": text, "scale": jnp.exp(self.scale)}
    return out if self.logit_bias is None else {**out, "bias": self.bias}

  def encode_image(self, image, *, train=False):
    """Images, as of a call -> unit vectors float32 [batch, embed_dim]"""
    self.image.check(image)
    return unit(self.image(image, train=train))

  def encode_text(self, tokens, *, valid=None, train=False):
    """int32 [batch, length] -> unit vectors float32 [batch, embed_dim]"""
    sizes.tokens_fit(tokens)
    return unit(self.text(tokens, valid=valid, train=train))

  @property
  def image_size(self):
    return self.image.image_size

  @property
  def image_shape(self):
    return self.image.image_shape

  @property
  def max_length(self):
    return self.text.max_length

  @nn.nowrap
  def example(self, batch_size=1):
    tokens = jnp.zeros((batch_size, min(self.max_length, 8)), jnp.int32)
    return self.image.example(batch_size), tokens


def unit(out):
  """L2-normalises a tower's projection, or else its pooled state: float32 [batch, dim]"""
  x = out["embedded" if "embedded" in out else "pooled"].astype(jnp.float32)
  return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
