"""Models of two models: an encoder and a decoder with cross-attention, or two encoders into one space."""

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial
from zoo.layers.mixed_precision import pick
from zoo.layers.sequence import SequenceInfo
from zoo.models.model import Model


class EncoderWithDecoder(Model):
  """Encoder-decoder of any encoder with the output "hidden" and a decoder of `zoo.models.cross_decoders`.

  Args:
    encoder, decoder: the models.
    project: a layer from the encoder's width to the decoder's; None: the widths are equal.
    start_token: the first decoder token.
  """

  encoder: nn.Module
  decoder: nn.Module
  project: nn.Module | None = None
  start_token: int = 0

  def __call__(self, source, decoder_tokens, /, *, train=False):
    """Inputs of the encoder, int32 [batch, decoder length] -> float32 [batch, decoder length, vocab_size]"""
    return self.decode(decoder_tokens, self.encode(source, train=train), train=train)

  def encode(self, source, /, *, valid=None, train=False):
    """Inputs of the encoder, bool [batch, length] for texts -> [batch, length, dim of the encoder]"""
    options = {} if valid is None else {"valid": valid}
    return self.encoder(source, **options, train=train)["hidden"]

  def decode(
    self, decoder_tokens, encoded, *, valid=None, decoder_valid=None, positions=None, predict=None, train=False
  ):
    """Logits of the next token; arguments and caches as of `zoo.models.encoder_decoder.EncoderDecoder.decode`."""
    info = SequenceInfo(decoder_valid, positions)
    x = self.decode_hidden(decoder_tokens, encoded, info=info, context_info=SequenceInfo(valid), train=train)
    return self.to_logits(x if predict is None else pick(x, predict))

  def decode_hidden(self, decoder_tokens, encoded, *, info, context_info, train=False):
    """Hidden states of the decoder: [batch, decoder length, dim]; arguments as `EncoderDecoder.decode_hidden`."""
    context = encoded if self.project is None else self.project(encoded)
    return self.decoder.decode_hidden(decoder_tokens, context, info=info, context_info=context_info, train=train)

  def to_logits(self, x):
    return self.decoder.to_logits(x)

  @property
  def decodes(self):
    return True

  @property
  def max_length(self):
    return self.decoder.max_length

  @property
  def vocab_size(self):
    return self.decoder.vocab_size

  @property
  def source_vocab_size(self):
    """The encoder's vocabulary size; None if it does not read tokens."""
    embed = getattr(self.encoder, "embed", None)
    return None if embed is None else embed.num_embeddings

  @nn.nowrap
  def example(self, batch_size=1):
    return (*self.encoder.example(batch_size)[:1], *self.decoder.example(batch_size))


class EncoderPair(Model):
  """Dual encoder of an image and a text encoder whose "pooled" outputs are projected into one space, and a logit scale.

  Args:
    image, text: the encoders.
    image_projection, text_projection: layers.
    logit_scale: initial value of the scale's logarithm.
  """

  image: nn.Module
  text: nn.Module
  image_projection: nn.Module
  text_projection: nn.Module
  logit_scale: float

  def setup(self):
    self.scale = self.param("logit_scale", initial.constant(self.logit_scale), ())

  def __call__(self, image, tokens, *, train=False):
    """{"image", "text" [batch, projected dim], not of unit length, "scale" = exp(logit_scale)}, float32."""
    image = self.image_projection(self.image(image, train=train)["pooled"])
    text = self.text_projection(self.text(tokens, train=train)["pooled"])
    return {"image": image, "text": text, "scale": jnp.exp(self.scale)}

  @nn.nowrap
  def example(self, batch_size=1):
    return (*self.image.example(batch_size), *self.text.example(batch_size)[:1])
