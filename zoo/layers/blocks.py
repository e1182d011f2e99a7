"""Residual blocks, composed of the attention, MLP and norm that they are given.

A block copies every part it is given, so that two places never share parameters by accident.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.layers.sequence import SequenceInfo


class DropPath(nn.Module):
  """Stochastic depth: drops a residual branch for a whole example with probability `rate`, and scales the rest up.

  Source: https://arxiv.org/abs/1603.09382
  """

  @nn.compact
  def __call__(self, x, rate, *, train=False):
    """[batch, ...], rate a number or a traced scalar -> [batch, ...]"""
    if not train or (isinstance(rate, float) and rate == 0):
      return x
    keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - rate, (x.shape[0],) + (1,) * (x.ndim - 1))
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


class Block(nn.Module):
  """A residual block: self-attention, attention to a context where there is one, and an MLP, wired by `residual`.

  Args:
    attention, mlp, norm: the parts, copied to `self_attention`, `feed_forward`, `attention_norm`, `mlp_norm`.
    cross: attention to `context`, copied to `cross_attention`, with `cross_norm`. None: there is no context.
    after: applied to the output of a sublayer before it is added: a norm, a LayerScale. Copied to `attention_after`,
      `cross_after`, `mlp_after`. None: nothing.
    dropout: rate at which entries of a sublayer's output are dropped.
  """

  attention: nn.Module
  mlp: nn.Module
  norm: nn.Module
  cross: nn.Module | None = None
  after: nn.Module | None = None
  dropout: float = 0.0

  @nn.compact
  def __call__(
    self,
    x,
    context=None,
    *,
    info=SequenceInfo(),
    context_info=SequenceInfo(),
    bias=None,
    drop_path=0.0,
    train=False,
  ):
    """[batch, length, dim] -> [batch, length, dim]

    Args:
      x: [batch, length, dim]
      context: [batch, context length, context dim], or None.
      info, context_info: facts about the tokens of x and of context.
      bias: of the self-attention's logits.
      drop_path: rate at which a sublayer is dropped for one example.
    """

    def finish(name, y):
      y = y if self.after is None else self.after.copy(name=f"{name}_after")(y)
      y = nn.Dropout(self.dropout)(y, deterministic=not train)
      return DropPath()(y, drop_path, train=train)

    attend = self.attention.copy(name="self_attention")
    x = self.residual("attention", x, lambda y: attend(y, info=info, bias=bias, train=train), finish)
    if self.cross is not None:
      read = self.cross.copy(name="cross_attention")
      sequence_info = dict(info=info, context_info=context_info)
      x = self.residual("cross", x, lambda y: read(y, context, **sequence_info, train=train), finish)
    feed = self.mlp.copy(name="feed_forward")
    return self.residual("mlp", x, lambda y: feed(y, train=train), finish)

  @nn.nowrap
  def residual(self, name, x, sublayer, finish):
    """Adds a sublayer to the residual stream: [batch, length, dim] -> [batch, length, dim]

    Args:
      name: "attention", "cross" or "mlp"; the sublayer's norm is called so.
      sublayer: [batch, length, dim] -> [batch, length, dim]
      finish: (name, output of the sublayer) -> the residual to add, after `after`, dropout and drop-path.
    """
    raise NotImplementedError


class PreNormBlock(Block):
  """x + sublayer(norm(x)): GPT-2, ViT, CLIP, T5. https://arxiv.org/abs/2002.04745. Arguments as Block."""

  @nn.nowrap
  def residual(self, name, x, sublayer, finish):
    return x + finish(name, sublayer(self.norm.copy(name=f"{name}_norm")(x)))


class PostNormBlock(Block):
  """norm(x + sublayer(x)): the first Transformer, BERT. https://arxiv.org/abs/1706.03762. Arguments as Block."""

  @nn.nowrap
  def residual(self, name, x, sublayer, finish):
    return self.norm.copy(name=f"{name}_norm")(x + finish(name, sublayer(x)))
