"""GPT: Improving Language Understanding by Generative Pre-Training (Radford et al., 2018).

Code: https://github.com/openai/finetune-transformer-lm.
"""

import functools
from typing import Unpack

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import initial, masks, norms, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PostNormBlock
from zoo.layers.compute import Compute, computing
from zoo.layers.dense import Dense
from zoo.layers.embeddings import Embed, last
from zoo.layers.mixed_precision import pick
from zoo.layers.mlp import MLP
from zoo.layers.positions import Learned
from zoo.layers.sequence import SequenceInfo
from zoo.layers.stack import stack
from zoo.models.decoder import Decoder, with_head

PAPER = {
  "title": "Improving Language Understanding by Generative Pre-Training",
  "authors": "Radford et al.",
  "year": 2018,
  "url": "https://cdn.openai.com/research-covers/language-unsupervised/language_understanding_paper.pdf",
}
HEADS = ("lm", "multiple_choice", "classify", None)


class Choices(Decoder, kw_only=True):
  """Multiple choice with an auxiliary language modelling loss, as in section 3.2 of the paper."""

  logits: nn.Module

  @nn.compact
  def __call__(self, tokens, *, valid=None, positions=None, read=None, train=False):
    """A score for each choice, and logits of the next token at every position.

    Args:
      tokens: int32 [batch, choices, length]
      valid: bool [batch, choices, length], True = a real token; others are masked.
      positions: int32 [1, length], counted from 0 if None.
      read: int32 [batch, choices], the token at which a choice is scored; the last valid one if None.

    Returns:
      dict of "logits" float32 [batch, choices], "lm" float32 [batch, choices, length, vocab_size]
    """
    batch, choices, length = tokens.shape
    valid = None if valid is None else valid.reshape(-1, length)
    x = self.hidden(tokens.reshape(-1, length), SequenceInfo(valid, positions), train=train)
    end = last(x, valid) if read is None else pick(x, read.reshape(-1, 1))[:, 0]
    scores = self.head_outputs(nn.Dropout(self.dropout)(end, deterministic=not train), (batch, choices))
    return {**scores, "lm": self.logits(x, self.embed).reshape(batch, choices, length, -1)}

  @nn.nowrap
  def example(self, batch_size=1):
    return (jnp.zeros((batch_size, 2, min(self.max_length or 8, 8)), jnp.int32),)


def openai_gpt(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  head: str | None = "lm",
  num_classes: int | None = None,
  tied: bool = True,
  activation: str = "gelu_tanh",
  epsilon: float = 1e-5,
  pad: int | None = None,
  **options: Unpack[Compute],
) -> Decoder:
  """A GPT of these sizes: post-norm, without a final norm.

  head: "lm" (the next token), "multiple_choice" (scores of several sequences, and their next tokens), "classify"
  (num_classes), None (hidden states).
  tied: whether the output layer is tied to the token embedding. pad: the padding token. epsilon: of the norms.
  """
  dropout, dtype, stacking = computing(options)
  head_dim = sizes.head_dim(dim, num_heads)
  sizes.positive(vocab_size=vocab_size, max_length=max_length, depth=depth)
  sizes.head_fits(head, HEADS, num_classes)
  init = initial.normal(0.02)
  norm = norms.layer_norm(epsilon, dtype)
  attention = Attention(
    num_heads,
    head_dim,
    mask=masks.causal,
    dropout=dropout,
    dtype=dtype,
    kernel_init=init,
    out_init=init,
  )
  mlp = MLP(4 * dim, activation, dtype=dtype, kernel_init=init, down_init=init)
  parts = dict(
    embed=Embed(vocab_size, dim, dtype=dtype, embedding_init=init),
    positions=Learned(max_length, dim, embedding_init=init),
    stack=stack(PostNormBlock(attention, mlp, norm, dropout=dropout), depth, **stacking),
    max_length=max_length,
    pad=pad,
    dropout=dropout,
  )
  if head == "multiple_choice":
    choices = functools.partial(Choices, choose=Dense(1, dtype=dtype, kernel_init=init))
    return with_head("lm", tied, num_classes, language_model=choices, **parts)
  return with_head(head, tied, num_classes, **parts)


VARIANTS = {"openai-gpt": dict(vocab_size=40478, max_length=512, dim=768, depth=12, num_heads=12)}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "openai-gpt": 116_534_784,
}
