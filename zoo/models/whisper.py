"""Whisper: Robust Speech Recognition via Large-Scale Weak Supervision (Radford et al., 2022).

https://arxiv.org/abs/2212.04356. Code: https://github.com/openai/whisper.
"""

import functools
import math
from typing import Any, Unpack

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, norms, sizes
from zoo.layers.blocks import PreNormBlock
from zoo.layers.compute import resolve
from zoo.layers.dense import Conv, Dense
from zoo.layers.embeddings import Embed
from zoo.layers.heads import TiedLogits
from zoo.layers.positions import Fixed, Learned
from zoo.layers.sequence import SequenceInfo
from zoo.layers.towers import PairOptions, encoder_decoder_towers
from zoo.models.encoder_decoder import EncoderDecoder

PAPER = {
  "title": "Robust Speech Recognition via Large-Scale Weak Supervision",
  "authors": "Radford et al.",
  "year": 2022,
  "url": "https://arxiv.org/abs/2212.04356",
}
HEADS = ("lm", "classify", None)


class AudioStem(nn.Module):
  """Audio stem: two convolutions over time, each followed by a gelu; the second halves the number of frames."""

  dim: int
  dtype: Any = None

  @nn.compact
  def __call__(self, features):
    """[batch, frames, mels] -> [batch, frames / 2, dim], rounded up"""
    x = features
    for i in range(2):
      conv = Conv(self.dim, (3,), strides=1 + i, padding=1, dtype=self.dtype, name=f"conv_{i}")
      x = nn.gelu(conv(x), approximate=False)
    return x


class ClipHead(nn.Module):
  """Audio classification head: out(mean(project(x))), the mean over time."""

  project: nn.Module
  out: nn.Module

  def __call__(self, x, valid=None):
    """[batch, length, dim], bool [batch, length] -> float32 [batch, num_classes]"""
    x = self.project(x)
    mean = x.mean(axis=1) if valid is None else x.mean(axis=1, where=valid[:, :, None])
    return self.out(mean).astype(jnp.float32)


class Whisper(EncoderDecoder, kw_only=True):
  """Encoder of audio, decoder of text, and the heads that are not None."""

  stem: nn.Module
  mels: int = 80

  def __call__(
    self,
    features,
    /,
    decoder_tokens=None,
    *,
    valid=None,
    decoder_valid=None,
    segment_ids=None,
    decoder_segment_ids=None,
    train=False,
  ):
    """Hidden states and the outputs of the heads.

    Args:
      features: float [batch, frames, mels], log-mel spectrograms, a frame every 10 ms.
      decoder_tokens: int32 [batch, decoder length]; start_token alone if None.
      valid: bool [batch, frames / 2], True for pairs of frames to attend to; all if None: Whisper was trained on full
        windows, padded with silence.
      decoder_valid: bool [batch, decoder length], True = a real token; others are masked.
      segment_ids, decoder_segment_ids: must be None; every recording has its own row.

    Returns:
      dict of "encoded" [batch, frames / 2, dim], "hidden" [batch, decoder length, dim] if there is a decoder, and where
      the model has a head "logits", float32 [batch, decoder length, vocab_size] or [batch, num_classes]
    """
    masks = dict(valid=valid, decoder_valid=decoder_valid)
    segments = dict(segment_ids=segment_ids, decoder_segment_ids=decoder_segment_ids)
    return super().__call__(features, decoder_tokens, **masks, **segments, train=train)

  def shifted(self, features, /):
    """start_token alone: int32 [batch, 1]"""
    sizes.start_fits(self.start_token, self.vocab_size)
    return jnp.full((features.shape[0], 1), self.start_token, jnp.int32)

  def encoder_outputs(self, encoded, valid):
    return {} if self.classify is None else {"logits": self.classify(encoded, valid)}

  def encode(self, features, /, *, valid=None, segment_ids=None, train=False):
    """float [batch, frames, mels] -> [batch, frames / 2, dim], rounded up"""
    if segment_ids is not None:
      raise ValueError(
        "Recordings cannot be packed: Whisper's convolutions would mix them. Give each its own row, no segment_ids."
      )
    if features.ndim != 3 or features.shape[2] != self.mels or not jnp.issubdtype(features.dtype, jnp.floating):
      raise ValueError(
        f"features are {features.dtype} {list(features.shape)}, the model needs floats [batch, frames, {self.mels}]."
      )
    return self.encoder(self.stem(features), info=SequenceInfo(valid), train=train)

  @nn.nowrap
  def example(self, batch_size=1):
    features = jnp.zeros((batch_size, min(2 * self.encoder.max_length, 16), self.mels))
    if self.decoder is None:
      return (features,)
    return features, jnp.zeros((batch_size, min(self.max_length, 6)), jnp.int32)


@functools.cache
def sinusoids(wavelength=10_000.0):
  """Sinusoidal positions [length, dim]: sines, then cosines, up to this wavelength. `sinusoids` of their model.py."""

  def init(rng, shape, dtype=jnp.float32):
    # In JAX, so that eval_shape computes nothing; in their order of operations, for equal rounding at far positions.
    half = shape[1] // 2
    turns = jnp.exp(-math.log(wavelength) / max(half - 1, 1) * jnp.arange(half, dtype=jnp.float32))
    angle = jnp.arange(shape[0], dtype=jnp.float32)[:, None] * turns[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1).astype(dtype)

  return init


def whisper(
  *,
  vocab_size: int,
  source_length: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  mels: int = 80,
  head: str | None = "lm",
  num_classes: int | None = None,
  projection_dim: int = 256,
  activation: str = "gelu",
  pad: int | None = None,
  start_token: int = 0,
  eos: int | None = None,
  **options: Unpack[PairOptions],
) -> Whisper:
  """A Whisper of these sizes; mlp_dim defaults to 4 * dim, the decoder's sizes default to the encoder's.

  source_length: maximum length of the encoder, half the frames. max_length: of the decoder.
  mels: number of mel bands.
  head: "lm" (the next token), "classify" (num_classes, from the encoder alone, through projection_dim), None (hidden
  states).
  pad: the padding token; its embedding is not trained. start_token: the first decoder token. eos: the end-of-text
  token, pad if None; unused in the model, but written to published files for generation.
  """
  sizes.positive(vocab_size=vocab_size, source_length=source_length, max_length=max_length, dim=dim, mels=mels)
  sizes.positive(projection_dim=projection_dim)
  sizes.head_fits(head, HEADS, num_classes)
  if eos is not None and not 0 <= eos < vocab_size:
    raise ValueError(f"eos is {eos}. It must be a token id: at least 0, below vocab_size {vocab_size}.")
  if dim % 2:
    raise ValueError(f"dim {dim} is odd. It must be even, for pairs of sine and cosine.")
  dtype = resolve(PairOptions, options).dtype
  init = initial.normal(0.02)
  norm = norms.layer_norm(1e-5, dtype)
  towers = encoder_decoder_towers(
    PreNormBlock,
    [
      Fixed(source_length, dim, embedding_init=sinusoids()),
      Learned(max_length, dim, embedding_init=init),
    ],
    dim=dim,
    depth=depth,
    num_heads=num_heads,
    activation=activation,
    init=init,
    norm=norm,
    last_norm=norm,
    key_bias=False,
    **options,
  )
  dense = functools.partial(Dense, dtype=dtype, kernel_init=init)
  decodes = head != "classify"
  return Whisper(
    stem=AudioStem(dim, dtype=dtype),
    embed=Embed(vocab_size, dim, dtype=dtype, embedding_init=init) if decodes else None,
    encoder=towers["encoder"],
    decoder=towers["decoder"] if decodes else None,
    logits=TiedLogits() if head == "lm" else None,
    classify=None if decodes else ClipHead(dense(projection_dim), dense(num_classes)),
    pad=pad,
    start_token=start_token,
    mels=mels,
  )


# Table 1 of the paper; whisper/__init__.py and tokenizer.py of their code.
_SIZES = {"tiny": (384, 4, 6), "base": (512, 6, 8), "small": (768, 12, 12), "medium": (1024, 24, 16)}
_SIZES = {
  name: dict(zip(("dim", "depth", "num_heads"), row), source_length=1500, max_length=448)
  for name, row in (_SIZES | {"large": (1280, 32, 20)}).items()
}
_ENGLISH = dict(vocab_size=51864, pad=50256, start_token=50257)
_ALL = dict(vocab_size=51865, pad=50257, start_token=50258)
_THIRD = dict(_ALL, vocab_size=51866, mels=128)
VARIANTS = {
  **{f"{name}.en": {**row, **_ENGLISH} for name, row in _SIZES.items() if name != "large"},
  **{name: {**row, **_ALL} for name, row in _SIZES.items()},
  "large-v3": {**_SIZES["large"], **_THIRD},
  "large-v3-turbo": {**_SIZES["large"], **_THIRD, "decoder_depth": 4},
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "tiny.en": 37_760_256,
  "base.en": 72_593_408,
  "small.en": 241_734_144,
  "medium.en": 763_856_896,
  "tiny": 37_760_640,
  "base": 72_593_920,
  "small": 241_734_912,
  "medium": 763_857_920,
  "large": 1_543_304_960,
  "large-v3": 1_543_490_560,
  "large-v3-turbo": 808_878_080,
}
