"""Encoder-decoder Transformers: what their families share."""

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import sizes
from zoo.layers.embeddings import last, look_up, shift_right
from zoo.layers.heads import TokenHeads
from zoo.layers.sequence import SequenceInfo
from zoo.models.model import PredictsTokens


class EncoderDecoder(TokenHeads, PredictsTokens):
  """An encoder, a decoder with cross-attention to its output, and one head or none.

  Args:
    embed: token embedding; of the encoder only, if there is a decoder_embed.
    encoder, decoder: towers, with the signature of `zoo.layers.towers.Tower`.
    logits: head of `zoo.layers.heads` for next tokens. Others as in `TokenHeads`; `classify_tokens` reads the encoder.
    embed_scale: multiplies token embeddings.
    pad: the padding token, whose embedding is not trained; None: there is none.
    start_token: the first decoder token.
    eos: the token at which `classify` reads.
  """

  embed: nn.Module | None
  encoder: nn.Module
  decoder: nn.Module | None = None
  decoder_embed: nn.Module | None = None
  logits: nn.Module | None = None
  embed_scale: float = 1.0
  pad: int | None = None
  start_token: int = 0
  eos: int = 1

  def __call__(
    self,
    tokens,
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
      tokens: int32 [batch, length]
      decoder_tokens: int32 [batch, decoder length]; if None, `tokens` shifted right after
        start_token, as heads for classes and answers were trained.
      valid: bool [batch, length], True = a real token; others are masked.
      decoder_valid: likewise, of decoder_tokens.
      segment_ids, decoder_segment_ids: int32 [batch, length], [batch, decoder length]: the packed pair of texts that a
        token belongs to. It attends to its own pair only, and positions count from 0 in each text. None: a row is one
        pair.

    Returns:
      dict of "encoded" [batch, length, dim], "hidden" [batch, decoder length, dim] of the decoder if there is one, and,
      where the model has the head:
        "logits" [batch, decoder length, vocab_size] of the next token, or [batch, num_classes] (at the last eos of
        `tokens`, else at their end), or for tokens [batch, length, num_classes],
        "start", "end" of an answer [batch, decoder length]. All logits are float32.
    """
    info, decoder_info = SequenceInfo(valid, None, segment_ids), SequenceInfo(decoder_valid, None, decoder_segment_ids)
    encoded = self.encode(tokens, valid=valid, segment_ids=segment_ids, train=train)
    if self.decoder is None:
      return {"encoded": encoded, **self.encoder_outputs(encoded, valid)}
    decoder_tokens = self.shifted(tokens) if decoder_tokens is None else decoder_tokens
    x = self.decode_hidden(decoder_tokens, encoded, info=decoder_info, context_info=info, train=train)
    return {"encoded": encoded, "hidden": x, **self.decoder_outputs(x, tokens, train=train)}

  def shifted(self, tokens, /):
    """Shifts `tokens` right after start_token: int32 [batch, length] -> int32 [batch, length]"""
    sizes.start_fits(self.start_token, self.vocab_size)
    return shift_right(tokens, self.start_token)

  def encoder_outputs(self, encoded, valid):
    """Outputs of the head for the encoder's states [batch, length, dim], if there is no decoder."""
    return self.head_outputs(encoded)

  def decoder_outputs(self, x, tokens, *, train):
    """Outputs of the head for the decoder's states [batch, decoder length, dim]; "classify" pools at `eos`."""
    if self.logits is not None:
      return {"logits": self.to_logits(x)}
    if self.classify is not None:
      return {"logits": self.classify(last(x, tokens == self.eos), train=train)}
    return self.head_outputs(x)

  def encode(self, tokens, /, *, valid=None, segment_ids=None, train=False):
    """Runs the encoder: int32 [batch, length] -> [batch, length, dim]"""
    sizes.tokens_fit(tokens, valid=valid)
    info = SequenceInfo(valid, None, segment_ids)
    return self.encoder(self._embedded(self.embed, tokens), info=info, train=train)

  def decode(
    self, decoder_tokens, encoded, *, valid=None, decoder_valid=None, positions=None, predict=None, train=False
  ):
    """Logits of the next token at every position.

    With the collection "cache" mutable it continues after the cached tokens; see `zoo.layers.attention`.

    Args:
      decoder_tokens: int32 [batch, decoder length]
      encoded: [batch, length, dim], from `encode`.
      valid: bool [batch, length], of `encoded`.
      decoder_valid: bool [batch, decoder length]
      positions: int32 [batch or 1, decoder length]; counted from 0 if None. Without a cache a sequence begins wherever
        they do not increase; all sequences of a row attend to all of `encoded`.
      predict: int32 [batch, k], indices into decoder length at which logits are wanted; everywhere if None.

    Returns:
      float32 [batch, decoder length or k, vocab_size]
    """
    info = SequenceInfo(decoder_valid, positions)
    x = self.decode_hidden(decoder_tokens, encoded, info=info, context_info=SequenceInfo(valid), train=train)
    return self.logits_at(x, predict)

  def decode_hidden(self, decoder_tokens, encoded, *, info, context_info, train=False):
    """Hidden states of the decoder: int32 [batch, decoder length] -> [batch, decoder length, dim]

    Args:
      decoder_tokens, encoded: as of `decode`.
      info, context_info: facts about decoder_tokens and about `encoded`.
    """
    if self.decoder is None:
      raise ValueError("This model has no decoder.")
    if (info.segment_ids is None) != (context_info.segment_ids is None):
      raise ValueError("segment_ids and decoder_segment_ids go together. Give both, or neither.")
    x = self._embedded(self.output_embed, decoder_tokens)
    return self.decoder(x, encoded, info=info, context_info=context_info, train=train)

  def _embedded(self, embed, tokens):
    sizes.tokens_fit(tokens)
    x = look_up(embed, tokens, self.pad)
    return x if self.embed_scale == 1 else x * self.embed_scale

  @property
  def source_vocab_size(self):
    """The encoder's vocabulary size; None if it does not read tokens."""
    return None if self.embed is None else self.embed.num_embeddings

  @property
  def output_embed(self):
    return self.embed if self.decoder_embed is None else self.decoder_embed

  @property
  def max_length(self):
    """Maximum length of decoder tokens; None: unlimited."""
    return None if self.decoder is None else self.decoder.max_length

  @nn.nowrap
  def example(self, batch_size=1):
    tokens = jnp.zeros((batch_size, min(self.encoder.max_length or 8, 8)), jnp.int32)
    if self.decoder is None:
      return (tokens,)
    return tokens, tokens if self.logits is None else tokens[:, :6]  # "classify" pools at the end of `tokens`.
