"""Heads: hidden states become logits over a vocabulary, or classes of sequences and tokens."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype

from zoo.layers import initial
from zoo.layers.embeddings import unembed
from zoo.layers.kernel_products import dot


class TiedLogits(nn.Module):
  """scale * x @ embedding.T, by the table that looks tokens up.

  Args:
    scale: of x.
    fixed_bias: whether a vector is added that does not learn: weights that come from other programs have one.
  """

  scale: float = 1.0
  fixed_bias: bool = False

  @nn.compact
  def __call__(self, x, embed):
    """[..., dim] -> float32 [..., vocab_size]"""
    logits = unembed(embed, x if self.scale == 1 else x * self.scale)
    if not self.fixed_bias:
      return logits
    bias = jax.lax.stop_gradient(self.param("bias", initial.zeros, logits.shape[-1:]))
    return logits + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


class OwnLogits(nn.Module):
  """scale * x @ kernel: an output layer of its own; dot_general: as of `zoo.layers.attention.Attention`."""

  vocab_size: int
  scale: float = 1.0
  dtype: Any = None
  kernel_init: Callable = initial.lecun_normal()
  dot_general: Callable | None = None

  @nn.compact
  def __call__(self, x, embed):
    """[..., dim] -> float32 [..., vocab_size]; `embed` is not used."""
    kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.vocab_size))
    x = x if self.scale == 1 else x * self.scale
    x = x.astype(canonicalize_dtype(x, kernel, dtype=self.dtype))
    return dot(x, kernel, dot_general=self.dot_general, preferred_element_type=jnp.float32)


class TanhHead(nn.Module):
  """out(tanh(dense(x))): classes of a vector, with dropout before each layer."""

  dense: nn.Module
  out: nn.Module
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, *, train=False):
    """[..., dim] -> float32 [..., num_classes]"""
    drop = nn.Dropout(self.dropout, deterministic=not train)
    return self.out(drop(nn.tanh(self.dense(drop(x))))).astype(jnp.float32)


class TokenHeads(nn.Module, kw_only=True):
  """The head of a model of tokens that classifies, as fields that models inherit; at most one of them is not None.

  classify: classes of a sequence, of one vector [batch, dim].
  choose: the score of one of several sequences, likewise.
  classify_tokens: classes of each token.
  answer: scores of each token, that an answer starts and that it ends there.
  """

  classify: nn.Module | None = None
  choose: nn.Module | None = None
  classify_tokens: nn.Module | None = None
  answer: nn.Module | None = None

  @property
  def head(self):
    """That one, or None."""
    heads = (self.classify, self.choose, self.classify_tokens, self.answer)
    return next((head for head in heads if head is not None), None)

  @property
  def summarizes(self):
    """Whether the head reads one vector of a sequence rather than all of its tokens'."""
    return self.classify is not None or self.choose is not None

  def head_outputs(self, x, shape=None, before=lambda x: x):
    """What the head makes of hidden states.

    Args:
      x: [batch, dim] where the model `summarizes`, else [batch, length, dim].
      shape: (batch, choices), of a head that chooses.
      before: what x passes on its way to the head.

    Returns:
      dict of float32 "logits" [batch, num_classes], [batch, length, num_classes] or [batch, choices]; or of "start",
      "end" [batch, length]; {} without a head.
    """
    if self.head is None:
      return {}
    logits = self.head(before(x)).astype(jnp.float32)
    if self.answer is not None:
      start, end = jnp.moveaxis(logits, -1, 0)
      return {"start": start, "end": end}
    return {"logits": logits if self.choose is None else logits.reshape(shape)}

  def rows(self, *arrays):
    """Arrays [batch, choices, length] as [batch * choices, length], of a model that chooses; others as they are."""
    return [x if x is None or self.choose is None else x.reshape(-1, x.shape[-1]) for x in arrays]


def token_heads(head, num_classes, dense, classify=None):
  """The fields of `TokenHeads` for the head of that name.

  Args:
    head: "classify", "multiple_choice", "classify_tokens", "question_answering"; any other: none of them.
    num_classes: of the heads that classify.
    dense: number of outputs -> layer.
    classify: likewise, where that of the head "classify" is another.
  """
  return {
    "classify": (classify or dense)(num_classes) if head == "classify" else None,
    "choose": dense(1) if head == "multiple_choice" else None,
    "classify_tokens": dense(num_classes) if head == "classify_tokens" else None,
    "answer": dense(2) if head == "question_answering" else None,
  }


def refuse_packed(segment_ids, summarizes):
  """Refuses packed rows where a model makes one vector of a row."""
  if segment_ids is not None and summarizes:
    raise ValueError(
      "This model has one output per row, so sequences cannot be packed. Build it with head='mlm', or leave out "
      "segment_ids."
    )
