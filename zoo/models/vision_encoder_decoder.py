"""Captions of any image encoder and any decoder, joined by cross-attention (Rothe et al., 2019; Vinyals et al., 2014).

https://arxiv.org/abs/1907.12461 joins trained encoders and decoders, https://arxiv.org/abs/1411.4555 captions images.
"""

from typing import Any, Unpack

from zoo.layers import initial
from zoo.layers.compute import Compute, computing
from zoo.layers.dense import Dense
from zoo.layers.sequence import SequenceInfo
from zoo.models.composed import EncoderWithDecoder
from zoo.models.cross_decoders import cross_decoder
from zoo.models.model import Model

PAPER = {
  "title": "Leveraging Pre-trained Checkpoints for Sequence Generation Tasks",
  "authors": "Rothe et al.",
  "year": 2019,
  "url": "https://arxiv.org/abs/1907.12461",
}
UNREAD = ("head", "pooler")  # Fields of image encoders that the decoder does not read.


class VisionEncoderDecoder(EncoderWithDecoder):
  """Writes about images. Arguments as `EncoderWithDecoder`."""

  def __call__(self, image, decoder_tokens, /, *, train=False):
    """Hidden states and logits of the next token.

    Args:
      image: float [batch, height, width, channels]
      decoder_tokens: int32 [batch, length]

    Returns:
      dict of "encoded" [batch, patches, dim of the encoder], "hidden" [batch, length, dim] of the decoder, "logits"
      float32 [batch, length, vocab_size]
    """
    encoded = self.encode(image, train=train)
    infos = {"info": SequenceInfo(), "context_info": SequenceInfo()}
    x = self.decode_hidden(decoder_tokens, encoded, **infos, train=train)
    return {"encoded": encoded, "hidden": x, "logits": self.to_logits(x)}

  @property
  def image_size(self):
    return self.encoder.image_size

  @property
  def image_shape(self):
    return self.encoder.image_shape


def vision_encoder_decoder(
  *, encoder: Model, decoder: Model, start_token: int = 0, **options: Unpack[Compute]
) -> VisionEncoderDecoder:
  """A model that writes about images; its decoder attends to all hidden states of its encoder in every layer.

  encoder: of images: vit, dinov2, clip_vision, siglip_vision; classes and a pooler are left out. In `zoo.build` and in
    configs: {"family": ..., "variant": ..., **sizes}.
  decoder: gpt with the head "lm", bert or roberta with the head "mlm", which become causal, each layer with
    cross-attention; or the decoder of a bart. A layer between the two converts widths that differ.
  start_token: the first token of every text.
  """
  _, dtype, _ = computing(options)
  tower = getattr(encoder, "image", encoder)
  if not hasattr(tower, "patches") or len(encoder.example()) > 1:
    raise ValueError(f"encoder is a {encoder.spec.get('family')}, which does not encode images alone. Try vit.")
  try:
    decoder = cross_decoder(decoder, causal=True, crosses=True)
  except KeyError:
    raise ValueError(
      f"decoder is a {decoder.spec.get('family')}. It may be a gpt, a bert, a roberta or a bart."
    ) from None
  if not decoder.decodes or decoder.trunk() is None:
    raise ValueError('decoder predicts no tokens. Build it with head="lm", or of a bert or roberta with head="mlm".')
  unread: Any = {name: None for name in UNREAD if getattr(encoder, name, None) is not None}
  width = decoder.embed.features
  return VisionEncoderDecoder(
    encoder=encoder.clone(**unread),
    decoder=decoder,
    project=None if width == tower.patches.dim else Dense(width, dtype=dtype, kernel_init=initial.normal(0.02)),
    start_token=start_token,
  )


VARIANTS = {
  # https://huggingface.co/nlpconnect/vit-gpt2-image-captioning
  "vit-gpt2": dict(
    encoder=dict(family="vit", variant="B/16", num_classes=None),
    decoder=dict(family="gpt", variant="gpt2"),
    start_token=50256,
  ),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {"vit-gpt2": 238_605_312}
