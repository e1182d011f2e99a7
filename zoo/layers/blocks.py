"""Residual blocks. The parts are passed in, never chosen here.

A block copies every part it is given, so that two places never share parameters by accident.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


class DropPath(nn.Module):
  """Drops what a residual branch adds to a whole example, with chance `rate`, and scales the rest up.

  Stochastic depth: https://arxiv.org/abs/1603.09382
  """

  @nn.compact
  def __call__(self, x, rate, *, train=False):
    """[batch, ...], rate a number or a traced scalar -> [batch, ...]"""
    if not train or (isinstance(rate, float) and rate == 0):
      return x
    keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - rate, (x.shape[0],) + (1,) * (x.ndim - 1))
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


class Block(nn.Module):
  """What residual blocks have in common.

  Args:
    attention, mlp, norm: the parts, copied to `self_attention`, `feed_forward`, `attention_norm`, `mlp_norm`.
    cross: attention to `context`, copied to `cross_attention`, with `cross_norm`. None: there is no context.
    after: what a sublayer gives passes it before it is added: a norm, a LayerScale. Copied to `attention_after`,
      `cross_after`, `mlp_after`. None: nothing.
    dropout: chance to drop an entry of what a sublayer adds.
  """

  attention: nn.Module
  mlp: nn.Module
  norm: nn.Module
  cross: nn.Module | None = None
  after: nn.Module | None = None
  dropout: float = 0.0

  def _thin(self, name, y, drop_path, train):
    y = y if self.after is None else self.after.copy(name=f"{name}_after")(y)
    y = nn.Dropout(self.dropout)(y, deterministic=not train)
    return DropPath()(y, drop_path, train=train)


class PreNormBlock(Block):
  """x + sublayer(norm(x)): GPT-2, ViT, CLIP, T5. https://arxiv.org/abs/2002.04745. Arguments as Block."""

  @nn.compact
  def __call__(
    self,
    x,
    context=None,
    *,
    valid=None,
    context_valid=None,
    positions=None,
    bias=None,
    segment_ids=None,
    context_segment_ids=None,
    drop_path=0.0,
    train=False,
  ):
    """[batch, length, dim] -> [batch, length, dim]; `drop_path` is the chance to drop a sublayer for one example."""
    shared = dict(positions=positions, segment_ids=segment_ids, train=train)
    y = self.norm.copy(name="attention_norm")(x)
    attend = self.attention.copy(name="self_attention")
    y = attend(y, valid=valid, bias=bias, **shared)
    x = x + self._thin("attention", y, drop_path, train)
    if self.cross is not None:
      y = self.norm.copy(name="cross_norm")(x)
      attend = self.cross.copy(name="cross_attention")
      y = attend(y, context, valid=context_valid, context_segment_ids=context_segment_ids, **shared)
      x = x + self._thin("cross", y, drop_path, train)
    y = self.norm.copy(name="mlp_norm")(x)
    return x + self._thin("mlp", self.mlp.copy(name="feed_forward")(y, train=train), drop_path, train)


class PostNormBlock(Block):
  """norm(x + sublayer(x)): the first Transformer, BERT. https://arxiv.org/abs/1706.03762. Arguments as Block."""

  @nn.compact
  def __call__(
    self,
    x,
    context=None,
    *,
    valid=None,
    context_valid=None,
    positions=None,
    bias=None,
    segment_ids=None,
    context_segment_ids=None,
    drop_path=0.0,
    train=False,
  ):
    """[batch, length, dim] -> [batch, length, dim]; `drop_path` is the chance to drop a sublayer for one example."""
    shared = dict(positions=positions, segment_ids=segment_ids, train=train)
    attend = self.attention.copy(name="self_attention")
    y = attend(x, valid=valid, bias=bias, **shared)
    x = self.norm.copy(name="attention_norm")(x + self._thin("attention", y, drop_path, train))
    if self.cross is not None:
      attend = self.cross.copy(name="cross_attention")
      y = attend(x, context, valid=context_valid, context_segment_ids=context_segment_ids, **shared)
      x = self.norm.copy(name="cross_norm")(x + self._thin("cross", y, drop_path, train))
    y = self.mlp.copy(name="feed_forward")(x, train=train)
    return self.norm.copy(name="mlp_norm")(x + self._thin("mlp", y, drop_path, train))
