"""Decoder-only Transformers: what their families share."""

import functools
from typing import Annotated, TypedDict

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import sizes
from zoo.layers.compute import Compute
from zoo.layers.dense import Dense
from zoo.layers.embeddings import last
from zoo.layers.heads import OwnLogits, TiedLogits, TokenHeads, token_heads
from zoo.layers.mixed_precision import pick
from zoo.layers.positions import add_positions
from zoo.layers.sequence import SequenceInfo
from zoo.models.model import Model, PredictsTokens

HEADS = ("lm", "classify", "classify_tokens", "question_answering", None)


class DecoderSizes(TypedDict, total=False):
  """Options shared by Llama and its relatives.

  num_kv_heads: heads of key and value; None: num_heads. head_dim: their width; None: dim / num_heads.
  head: "lm" (the next token), "classify" (num_classes), "classify_tokens" (num_classes each), "question_answering"
    (start and end of an answer), None (hidden states).
  rope: scaling of rotary positions for longer sequences, {"name": "linear", "factor": 2.0} or another of
    `zoo.layers.rope_scaling`.
  window: how many tokens a token of a local layer attends to, itself and those before it.
  attention_bias: of query, key and value. qk_norm: whether each head of query and key has a norm, as in Qwen 3.
  pad: the padding token; its embedding is not trained.
  """

  num_kv_heads: Annotated[int | None, None]
  head_dim: Annotated[int | None, None]
  head: Annotated[str | None, "lm"]
  num_classes: Annotated[int | None, None]
  rope: Annotated[dict | None, None]
  window: Annotated[int | None, None]
  attention_bias: Annotated[bool, False]
  qk_norm: Annotated[bool, False]
  pad: Annotated[int | None, None]


class DecoderOptions(DecoderSizes, Compute):
  """Options that the factories of Llama and its relatives share."""


class Decoder(TokenHeads, Model):
  """Token embedding, layers, and a head of `TokenHeads` or none.

  Args:
    embed, stack: the token embedding and the layers.
    positions: added to token embeddings; None: only the layers use positions.
    norm: after the last layer; None: the last layer ends with one.
    max_length: maximum sequence length; None: no maximum.
    pad: the padding token; None: there is none.
    dropout: rate of dropout before the first layer.
  """

  embed: nn.Module
  stack: nn.Module
  positions: nn.Module | None = None
  norm: nn.Module | None = None
  max_length: int | None = None
  pad: int | None = None
  dropout: float = 0.0

  @nn.compact
  def __call__(self, tokens, *, valid=None, positions=None, train=False):
    """Hidden states and the outputs of the heads.

    Args:
      tokens: int32 [batch, length]
      valid: bool [batch, length], True = a real token; others are masked.
      positions: int32 [batch or 1, length], counted from 0 if None; a sequence begins wherever they do not increase.

    Returns:
      dict of "hidden" [batch, length, dim] and, where the model has the head:
        "logits" [batch, num_classes] (read at the last token that is not `pad`; without one, at the last valid token),
        of tokens [batch, length, num_classes], "start", "end" of an answer [batch, length]. All logits are float32.
    """
    x = self.hidden(tokens, SequenceInfo(valid, positions), train=train)
    y = self.summary(x, valid if self.pad is None else tokens != self.pad) if self.summarizes else x
    return {"hidden": x, **self.head_outputs(y)}

  @nn.nowrap
  def summary(self, x, real=None):
    """The vector that a classifier of sequences reads: [batch, length, dim], bool [batch, length] -> [batch, dim]"""
    return last(x, real)

  def hidden(self, tokens, info, *, predict=None, train=False):
    """Hidden states of tokens, int32 [batch, length], with their `SequenceInfo`: [batch, length or k, dim]"""
    sizes.tokens_fit(tokens)
    x = self.embed(tokens)
    if self.positions is not None:
      x = add_positions(x, self.positions, info, self.variables.get("cache"))
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    x = self.stack(x, info=info, train=train)
    x = x if predict is None else pick(x, predict)
    return x if self.norm is None else self.norm(x)

  @property
  def vocab_size(self):
    return self.embed.num_embeddings

  @nn.nowrap
  def example(self, batch_size=1):
    return (jnp.zeros((batch_size, min(self.max_length or 8, 8)), jnp.int32),)


class LanguageModel(PredictsTokens, Decoder, kw_only=True):
  """Decoder that predicts the next token; without the head `logits` it returns hidden states."""

  logits: nn.Module | None

  @nn.compact
  def __call__(self, tokens, *, valid=None, positions=None, segment_ids=None, predict=None, train=False):
    """Logits of the next token at every position.

    Args:
      tokens: int32 [batch, length]
      valid: bool [batch, length], True = a real token; others are masked.
      positions: int32 [batch or 1, length]; counted from 0 (from the cache's end) if None, in each text of a row.
        Without segment_ids (and a cache) a sequence begins wherever they do not increase.
      segment_ids: int32 [batch, length] of packed sequences; tokens attend within their segment only.
        None: a row is one sequence.
      predict: int32 [batch, k], indices into length at which logits are wanted; everywhere if None.

    Returns:
      float32 [batch, length or k, vocab_size]
    """
    x = self.hidden(tokens, SequenceInfo(valid, positions, segment_ids), predict=predict, train=train)
    return x if self.logits is None else self.to_logits(x)


def with_head(head, tied, num_classes, *, language_model=LanguageModel, decoder=Decoder, embed, **parts):
  """The decoder of these parts with a head; `tied`: whether a language model's head is the token embedding."""
  dense = functools.partial(Dense, dtype=embed.dtype, kernel_init=embed.embedding_init)
  if head == "lm":
    untied = OwnLogits(embed.num_embeddings, dtype=embed.dtype, kernel_init=embed.embedding_init)
    return language_model(embed=embed, logits=TiedLogits() if tied else untied, **parts)
  heads = token_heads(head, num_classes, dense, classify=functools.partial(dense, use_bias=False))
  return decoder(embed=embed, **heads, **parts)
