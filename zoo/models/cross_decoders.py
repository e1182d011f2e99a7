"""Decoders with optional cross-attention made of BERT, RoBERTa, GPT-2 and the decoder of BART.

Leveraging Pre-trained Checkpoints for Sequence Generation Tasks (Rothe et al., 2019), https://arxiv.org/abs/1907.12461.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import masks, sizes
from zoo.layers.blocks import Block
from zoo.layers.embeddings import look_up
from zoo.layers.parts import replace_modules
from zoo.layers.positions import add_positions
from zoo.layers.sequence import SequenceInfo
from zoo.models.bert import BERT
from zoo.models.decoder import LanguageModel
from zoo.models.model import PredictsTokens
from zoo.models.roberta import RoBERTa


class CrossDecoder(PredictsTokens):
  """A decoder whose layers may attend to `context`: subclasses have `embed` and `decode_hidden`."""

  def __call__(self, tokens, *, segments=None, valid=None, positions=None, segment_ids=None, predict=None, train=False):
    """Logits of the next token at every position.

    Args:
      tokens: int32 [batch, length]
      segments: int32 [batch, length], of a BERT: 0 = first sentence, 1 = second; all 0 if None.
      valid: bool [batch, length], True = a real token; others are masked.
      positions: int32 [batch or 1, length], counted from 0 in each packed sequence if None.
      segment_ids: int32 [batch, length] of packed sequences; tokens attend within their segment only.
        None: a row is one sequence.
      predict: int32 [batch, k], indices into length at which logits are wanted; everywhere if None.

    Returns:
      float32 [batch, length or k, vocab_size]
    """
    info = SequenceInfo(valid, positions, segment_ids)
    return self.logits_at(self.decode_hidden(tokens, info=info, segments=segments, train=train), predict)

  def decode_hidden(
    self, tokens, context=None, *, info=SequenceInfo(), context_info=SequenceInfo(), segments=None, train=False
  ):
    """int32 [batch, length] -> [batch, length, dim]

    Args:
      tokens, segments: as of a call.
      context: float [batch, context length, dim], input of cross-attention; None for models `without_cross_attention`.
      info, context_info: what is known about tokens and context.
    """
    raise NotImplementedError

  @property
  def decodes(self):
    return True

  @nn.nowrap
  def example(self, batch_size=1):
    return (jnp.zeros((batch_size, min(self.max_length, 8)), jnp.int32),)


class BERTDecoder(CrossDecoder, BERT):
  """Causal BERT with optional cross-attention. Arguments as BERT, with the head "mlm"."""

  @nn.compact
  def decode_hidden(
    self, tokens, context=None, *, info=SequenceInfo(), context_info=SequenceInfo(), segments=None, train=False
  ):
    sizes.tokens_fit(tokens)
    x = self.norm(self.embedded(tokens, segments, info))
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    # RoBERTa's negative positions, which padding has, must not reach the attention.
    positions = None if info.positions is None else jnp.maximum(info.positions, 0)
    return self.stack(x, context, info=info._replace(positions=positions), context_info=context_info, train=train)


class RoBERTaDecoder(BERTDecoder, RoBERTa):
  """Causal RoBERTa with optional cross-attention. Arguments as RoBERTa, with the head "mlm"."""


class GPTDecoder(CrossDecoder, LanguageModel):
  """GPT-2 with optional cross-attention. Arguments as `LanguageModel`."""

  @nn.compact
  def decode_hidden(
    self, tokens, context=None, *, info=SequenceInfo(), context_info=SequenceInfo(), segments=None, train=False
  ):
    sizes.tokens_fit(tokens)
    x = add_positions(self.embed(tokens), self.positions, info)
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    x = self.stack(x, context, info=info, context_info=context_info, train=train)
    return x if self.norm is None else self.norm(x)


class TowerDecoder(CrossDecoder):
  """The decoder of an encoder-decoder, without the encoder. Arguments as `EncoderDecoder`."""

  embed: nn.Module
  decoder: nn.Module
  logits: nn.Module
  embed_scale: float = 1.0
  pad: int | None = None

  def decode_hidden(
    self, tokens, context=None, *, info=SequenceInfo(), context_info=SequenceInfo(), segments=None, train=False
  ):
    sizes.tokens_fit(tokens)
    x = look_up(self.embed, tokens, self.pad) * self.embed_scale
    return self.decoder(x, context, info=info._replace(segment_ids=None), context_info=context_info, train=train)

  @property
  def max_length(self):
    return self.decoder.max_length


def cross_decoder(model, *, causal, crosses):
  """Converts a BERT, a RoBERTa (both with the head "mlm") or a GPT-2 to a decoder; takes the decoder of other models.

  Args:
    model: from `zoo.build`, whose `spec` the decoder keeps.
    causal: whether a token attends only to itself and the past.
    crosses: whether layers have cross-attention; its parameters have the shapes of self-attention.
  """
  if hasattr(model, "decoder"):
    names = ("embed", "decoder", "logits", "embed_scale", "pad", "spec_json", "preprocessing_json")
    return TowerDecoder(**{name: getattr(model, name) for name in names})
  kind = {BERT: BERTDecoder, RoBERTa: RoBERTaDecoder, LanguageModel: GPTDecoder}[type(model)]

  def change(part, path):
    if not isinstance(part, Block):
      return part
    cross = part.attention.copy(mask=None) if crosses else None
    return part.clone(attention=part.attention.copy(mask=masks.causal if causal else None), cross=cross)

  names = [field.name for field in dataclasses.fields(model) if field.name not in ("parent", "name")]
  return replace_modules(kind(**{name: getattr(model, name) for name in names}), change)


def without_cross_attention(model):
  """The decoder without cross-attention; the parameter tree may keep those of the full one."""
  return replace_modules(model, lambda part, path: part.clone(cross=None) if isinstance(part, Block) else part)
