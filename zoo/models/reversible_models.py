"""Models of reversible layers."""

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import sizes
from zoo.layers.heads import TokenHeads
from zoo.layers.mixed_precision import add, pick
from zoo.layers.positions import TooLong
from zoo.layers.reversible import Streams
from zoo.layers.sequence import SequenceInfo
from zoo.models.model import Model, PredictsMaskedTokens, PredictsTokens


class ReversibleModel(Model):
  """Embeddings, reversible layers, and a norm of both of their streams.

  Args:
    embed, positions, stack, norm: the parts.
    max_length: of a row.
    multiple: rows longer than `shortest` are padded to a multiple of it, as chunks need.
    causal: whether tokens attend to earlier ones only.
    dropout: rate of dropout on embeddings and after the norm.
  """

  embed: nn.Module
  positions: nn.Module
  stack: nn.Module
  norm: nn.Module
  max_length: int
  multiple: int
  shortest: int
  causal: bool
  dropout: float = 0.0

  def hidden(self, tokens, info, *, rotations=None, predict=None, train=False):
    """Hidden states: int32 [batch, length] -> [batch, length or k, 2 * dim]"""
    sizes.tokens_fit(tokens, valid=info.valid)
    batch, length = tokens.shape
    if info.segment_ids is not None:
      raise ValueError(
        "A Reformer sorts the tokens of a whole row, so packed sequences would depend on each other. Give each its own "
        "row, and no segment_ids."
      )
    if length > self.max_length:
      raise TooLong(type(self.positions).__name__, length, self.max_length)
    cached = self.causal and self.is_mutable_collection("cache") and not self.is_initializing()
    if cached and info.positions is None:
      raise ValueError(
        "Decoding with a cache needs positions: int32 [batch or 1, length] of the tokens. Pass positions."
      )
    drop = nn.Dropout(self.dropout, deterministic=not train)
    x = add(drop(self.embed(tokens)), self.positions(length, info.positions, batch=batch, train=train))
    more = 0 if cached or length <= self.shortest else -length % self.multiple
    info = SequenceInfo(info.valid, info.positions if cached else None)
    if more:
      valid = jnp.ones((batch, length), bool) if info.valid is None else info.valid.astype(bool)
      x, info = jnp.pad(x, ((0, 0), (0, more), (0, 0))), SequenceInfo(jnp.pad(valid, ((0, 0), (0, more))))
    streams = self.stack(Streams(x, x), info=info, rotations=rotations, train=train)
    x = jnp.concatenate(streams, axis=-1)[:, :length]
    x = x if predict is None else pick(x, predict)
    return drop(self.norm(x))

  @nn.nowrap
  def example(self, batch_size=1):
    return (jnp.zeros((batch_size, min(self.max_length, 8)), jnp.int32),)


class ReformerLM(PredictsTokens, ReversibleModel, kw_only=True):
  """Language model. What a token attends to is never later than it, and yet not causal to the bit.

  Hashing sorts all tokens of a row: which earlier tokens fall into a token's chunk depends on later ones too. Rows
  without hashing, of at most the shortest chunk, are exactly causal, and so is generation, where tokens of LSH layers
  attend to all before them.
  """

  logits: nn.Module | None

  @nn.compact
  def __call__(
    self, tokens, *, valid=None, positions=None, segment_ids=None, rotations=None, predict=None, train=False
  ):
    """Logits of the next token at every position.

    Args:
      tokens: int32 [batch, length]
      valid: bool [batch, length], True = a real token; others are masked.
      positions: int32 [batch or 1, length], of the embeddings; counted from 0 if None.
      segment_ids: refused.
      rotations: of all LSH layers, see `zoo.layers.lsh.LSHAttention.noted`; None: drawn.
      predict: int32 [batch, k], indices into length at which logits are wanted; everywhere if None.

    Returns:
      float32 [batch, length or k, vocab_size]
    """
    info = SequenceInfo(valid, positions, segment_ids)
    x = self.hidden(tokens, info, rotations=rotations, predict=predict, train=train)
    return x if self.logits is None else self.to_logits(x)


class Reformer(TokenHeads, PredictsMaskedTokens, ReversibleModel):
  """Hidden states, and what the heads make of them."""

  @nn.compact
  def __call__(self, tokens, *, valid=None, positions=None, rotations=None, predict=None, train=False):
    """Hidden states and the outputs of the heads.

    Args:
      tokens, valid, positions, rotations: as of `ReformerLM`.
      predict: int32 [batch, k], indices of the tokens that the head "mlm" predicts; all if None.

    Returns:
      dict of "hidden" [batch, length, 2 * dim] and, where the model has the head:
        "mlm" [batch, length or k, vocab_size]; "logits" [batch, num_classes], read at the first token;
        "start", "end" of an answer [batch, length]. All logits are float32.
    """
    x = self.hidden(tokens, SequenceInfo(valid, positions), rotations=rotations, train=train)
    heads = self.head_outputs(x) if self.classify is None else {"logits": self.classify(x[:, 0], train=train)}
    return {"hidden": x, **self.masked_tokens(x, predict), **heads}
