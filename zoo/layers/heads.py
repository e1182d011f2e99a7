"""Output heads: logits over a vocabulary, or over classes of sequences and tokens."""

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
  """Tied output layer: scale * x @ embedding.T.

  Args:
    scale: of x.
    fixed_bias: whether a bias is added that is not trained, as some published weights have.
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
  """Untied output layer: scale * x @ kernel; dot_general: as in `zoo.layers.attention.Attention`."""

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
  """Classification head out(tanh(dense(x))), with dropout before each layer."""

  dense: nn.Module
  out: nn.Module
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, *, train=False):
    """[..., dim] -> float32 [..., num_classes]"""
    drop = nn.Dropout(self.dropout, deterministic=not train)
    return self.out(drop(nn.tanh(self.dense(drop(x))))).astype(jnp.float32)


class TokenHeads(nn.Module, kw_only=True):
  """Classification heads of token models, as fields to inherit; at most one of them is not None.

  classify: classes of a sequence, from one vector [batch, dim].
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
    """The head that is not None, or None."""
    heads = (self.classify, self.choose, self.classify_tokens, self.answer)
    return next((head for head in heads if head is not None), None)

  @property
  def summarizes(self):
    """Whether the head reads one vector of a sequence rather than all of its tokens'."""
    return self.classify is not None or self.choose is not None

  def head_outputs(self, x, shape=None, before=lambda x: x):
    """Applies the head to hidden states.

    Args:
      x: [batch, dim] where the model `summarizes`, else [batch, length, dim].
      shape: (batch, choices), for the head `choose`.
      before: applied to x before the head.

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
    """Flattens [batch, choices, length] to [batch * choices, length] for the head `choose`; else the identity."""
    return [x if x is None or self.choose is None else x.reshape(-1, x.shape[-1]) for x in arrays]


def token_heads(head, num_classes, dense, classify=None):
  """The fields of `TokenHeads` for a head's name.

  Args:
    head: "classify", "multiple_choice", "classify_tokens", "question_answering"; other names give no head.
    num_classes: of "classify" and "classify_tokens".
    dense: number of outputs -> layer.
    classify: the same for the head "classify", if it differs.
  """
  return {
    "classify": (classify or dense)(num_classes) if head == "classify" else None,
    "choose": dense(1) if head == "multiple_choice" else None,
    "classify_tokens": dense(num_classes) if head == "classify_tokens" else None,
    "answer": dense(2) if head == "question_answering" else None,
  }


def refuse_packed(segment_ids, summarizes):
  """ValueError for packed rows in a model that pools one vector per row."""
  if segment_ids is not None and summarizes:
    raise ValueError(
      "This model has one output per row, so sequences cannot be packed. Build it with head='mlm', or leave out "
      "segment_ids."
    )
