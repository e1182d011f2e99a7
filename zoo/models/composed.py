"""Two models as one: an encoder and a decoder that attends to what it read, or two encoders into one space."""

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial
from zoo.layers.mixed_precision import pick
from zoo.layers.sequence import SequenceInfo
from zoo.models.model import Model


class EncoderWithDecoder(Model):
  """Any encoder whose outputs have "hidden", and a decoder of `zoo.models.cross_decoders`.

  Args:
    encoder, decoder: the models.
    project: a layer from the encoder's width to the decoder's; None: they are as wide.
    start_token: what decoding starts with.
  """

  encoder: nn.Module
  decoder: nn.Module
  project: nn.Module | None = None
  start_token: int = 0

  def __call__(self, source, decoder_tokens, /, *, train=False):
    """What the encoder reads, int32 [batch, decoder length] -> float32 [batch, decoder length, vocab_size]"""
    return self.decode(decoder_tokens, self.encode(source, train=train), train=train)

  def encode(self, source, /, *, valid=None, train=False):
    """What the encoder reads, and of texts bool [batch, length] -> [batch, length, dim of the encoder]"""
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
    """What logits are made of: [batch, decoder length, dim]; as of `EncoderDecoder.decode_hidden`."""
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
    """Of the encoder's tokens; None: it reads none."""
    embed = getattr(self.encoder, "embed", None)
    return None if embed is None else embed.num_embeddings

  @nn.nowrap
  def example(self, batch_size=1):
    return (*self.encoder.example(batch_size)[:1], *self.decoder.example(batch_size))


class EncoderPair(Model):
  """An encoder of images and one of texts, the "pooled" of both projected into one space, and a scale to compare at.

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
