"""What families have in common that read a text from left to right."""

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
  """Options that Llama and its kin share.

  num_kv_heads: heads of key and value; None: num_heads. head_dim: their width; None: dim / num_heads.
  head: "lm" (the next token), "classify" (num_classes), "classify_tokens" (num_classes each), "question_answering"
    (where an answer starts and ends), None (hidden states).
  rope: scaling of rotary positions for longer sequences, {"name": "linear", "factor": 2.0} or another of
    `zoo.layers.rope_scaling`.
  window: how many tokens a token of a local layer attends to, itself and those before it.
  attention_bias: of query, key and value. qk_norm: whether each head of query and key has a norm, as in Qwen 3.
  pad: the token of padding, about which nothing is learned.
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
  """What the factories of Llama and its kin take beside what is theirs."""


class Decoder(TokenHeads, Model):
  """Layers over vectors of tokens, and a head of `TokenHeads` or none.

  Args:
    embed, stack: vectors of tokens, and the layers.
    positions: added to the vectors; None: the layers know where tokens stand.
    norm: after the last layer; None: it ends with one.
    max_length: how long a text may be.
    pad: the token of padding; None: there is none.
    dropout: chance to drop an entry of what goes into the first layer.
  """

  embed: nn.Module
  stack: nn.Module
  positions: nn.Module | None = None
  norm: nn.Module | None = None
  max_length: int = 0
  pad: int | None = None
  dropout: float = 0.0

  @nn.compact
  def __call__(self, tokens, *, valid=None, positions=None, train=False):
    """Hidden states, and what the heads make of them.

    Args:
      tokens: int32 [batch, length]
      valid: bool [batch, length], True = a real token; others are masked.
      positions: int32 [batch or 1, length], counted from 0 if None; a text begins wherever they do not rise.

    Returns:
      dict of "hidden" [batch, length, dim] and, where the model has the head:
        "logits" [batch, num_classes] (read at the last token that is not `pad`; without one, at the last valid token),
        of tokens [batch, length, num_classes], "start", "end" of an answer [batch, length]. All logits are float32.
    """
    x = self.hidden(tokens, SequenceInfo(valid, positions), train=train)
    y = last(x, valid if self.pad is None else tokens != self.pad) if self.summarizes else x
    return {"hidden": x, **self.head_outputs(y)}

  def hidden(self, tokens, info, *, predict=None, train=False):
    """Hidden states of tokens, int32 [batch, length], about which `info` is known: [batch, length or k, dim]"""
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
    return (jnp.zeros((batch_size, min(self.max_length, 8)), jnp.int32),)


class LanguageModel(PredictsTokens, Decoder, kw_only=True):
  """A decoder that predicts the next token; without `logits` it gives what they are made of."""

  logits: nn.Module | None

  @nn.compact
  def __call__(self, tokens, *, valid=None, positions=None, segment_ids=None, predict=None, train=False):
    """Logits of the next token at every position.

    Args:
      tokens: int32 [batch, length]
      valid: bool [batch, length], True = a real token; others are masked.
      positions: int32 [batch or 1, length]; counted from 0 (from the cache's end) if None, in each text of a row.
        Without segment_ids (and a cache) a text begins wherever they do not rise.
      segment_ids: int32 [batch, length] of packed sequences; tokens attend within their segment only.
        None: a row is one text.
      predict: int32 [batch, k], indices into length at which logits are wanted; everywhere if None.

    Returns:
      float32 [batch, length or k, vocab_size]
    """
    x = self.hidden(tokens, SequenceInfo(valid, positions, segment_ids), predict=predict, train=train)
    return x if self.logits is None else self.to_logits(x)


def with_head(head, tied, num_classes, *, language_model=LanguageModel, embed, **parts):
  """The decoder of these parts with a head; `tied`: whether that of a language model is the embedding."""
  dense = functools.partial(Dense, dtype=embed.dtype, kernel_init=embed.embedding_init)
  if head == "lm":
    untied = OwnLogits(embed.num_embeddings, dtype=embed.dtype, kernel_init=embed.embedding_init)
    return language_model(embed=embed, logits=TiedLogits() if tied else untied, **parts)
  heads = token_heads(head, num_classes, dense, classify=functools.partial(dense, use_bias=False))
  return Decoder(embed=embed, **heads, **parts)
